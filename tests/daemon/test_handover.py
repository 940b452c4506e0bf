"""Live connections at a reload: what moves, what drains, what new code and options do to them."""

import signal
import time
from collections.abc import Callable

import pytest
from harness import Client, Config, Daemon, upper_at
from processes import descriptors, eventually


def serving(protocol: str, name: str = "mine", **settings: object) -> Config:
    """A service of movable.py."""
    return {"name": name, "protocol": f"movable:{protocol}", "bind": "127.0.0.1:0", **settings}


def pid_of(client: Client) -> int:
    """Who serves it now, for the protocols that say so."""
    client.sock.sendall(b"?")
    return int(client.line())


def pids(running: Daemon, generation: int) -> set[int]:
    return {worker.pid for worker in running.workers(generation)}


# -- what moves --------------------------------------------------------------------------------


def test_idle_connections_move_and_the_old_workers_leave_at_once(
    daemon: Callable[..., Daemon],
) -> None:
    running = daemon(services=[serving("Where")])
    clients = [running.client(running.address("mine")) for _ in range(100)]
    assert {pid_of(client) for client in clients} == pids(running, 1)
    begin = time.monotonic()
    running.reload()
    workers = running.wait_workers(2, generation=2, timeout=3)
    assert time.monotonic() - begin < 3
    assert {pid_of(client) for client in clients} <= {worker.pid for worker in workers}
    found = [running.wait_log(r"(\d+) connections moved in", count=n).split() for n in (1, 2)]
    assert sum(int(words[words.index("connections") - 1]) for words in found) == 100


def test_changed_options_take_effect(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[serving("Records", options={"prefix": "old "})])
    client = running.client(running.address("mine"))
    assert client.ask(b"a\nb", 8) == b"old 1:a\n"
    running.reload({"services": [serving("Records", options={"prefix": "new "})]})
    running.wait_workers(2, generation=2)
    assert client.ask(b"\n", 8) == b"new 2:b\n"


CODE = """
import epolld
class P(epolld.Protocol):
    def data_received(self, data):
        self.transport.write(b"%s")
"""


def test_changed_code_takes_effect(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {"services": [{"name": "mine", "protocol": "mine:P", "bind": "127.0.0.1:0"}]}
    )
    made.write_module("mine", CODE % "old")
    made.start()
    client = made.client(made.address("mine"))
    assert client.ask(b"?", 3) == b"old"
    made.write_module("mine", CODE % "newer")
    made.reload()
    made.wait_workers(2, generation=2)
    assert client.ask(b"?", 5) == b"newer"


def test_a_refused_state_closes_that_connection(make_daemon: Callable[[Config], Daemon]) -> None:
    """With a reason in the log."""
    made = make_daemon({"services": [serving("Where"), serving("Records", "mine2")]})
    made.write_module("mine", CODE % "x" + "    def freeze(self): return b''\n")
    made.config["services"].append({"name": "bad", "protocol": "mine:P", "bind": "127.0.0.1:0"})
    made.write_config(made.config)
    made.start()
    bad, good = made.client(made.address("bad")), made.client(made.address("mine"))
    assert bad.ask(b"?", 1) == b"x"
    assert pid_of(good)
    refuse = "    def thaw(self, state): raise ValueError('too old')\n"
    made.write_module("mine", CODE % "y" + refuse)
    made.reload()
    made.wait_workers(2, generation=2)
    assert bad.is_ended()
    assert pid_of(good) in pids(made, 2)
    made.expect("thaw of P raised ValueError; closing the connection from 127", "too old")
    made.allow("Traceback", r"^  ", "^ValueError")


def test_ttou_moves(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[serving("Where")])
    clients = [running.client(running.address("mine")) for _ in range(50)]
    assert len({pid_of(client) for client in clients}) == 2
    running.send(signal.SIGTTOU)
    (left,) = running.wait_workers(1, generation=1, timeout=3)
    assert {pid_of(client) for client in clients} == {left.pid}


def test_not_now_moves_later(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[serving("Later")])
    client = running.client(running.address("mine"))
    old = pid_of(client)
    running.reload()
    assert pid_of(client) == old
    client.ask(b"!", len(str(old)) + 1)
    running.wait_workers(2, generation=2, timeout=3)
    assert pid_of(client) in pids(running, 2)


def test_over_several_generations(daemon: Callable[..., Daemon]) -> None:
    """One that could not move at the first reload is given to the workers of the second."""
    running = daemon(services=[serving("Later")])
    client = running.client(running.address("mine"))
    old = pid_of(client)
    running.reload()
    running.reload()
    client.ask(b"!", len(str(old)) + 1)
    running.wait_workers(2, generation=3, timeout=4)
    assert pid_of(client) in pids(running, 3)


def test_descriptors_after_twenty_reloads(daemon: Callable[..., Daemon]) -> None:
    """Of the workers; the harness compares the master's."""
    running = daemon(services=[serving("Where")], workers={"count": 1})
    clients = [running.client(running.address("mine")) for _ in range(10)]
    assert all(pid_of(client) for client in clients)

    def count() -> int:
        (worker,) = running.wait_workers(1)
        return len(descriptors(worker.pid))

    running.reload()
    running.wait_workers(1, generation=2)
    before = count()
    for turn in range(20):
        running.reload()
        running.wait_workers(1, generation=turn + 3)
    assert count() == before
    assert all(pid_of(client) for client in clients)


# -- what drains -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "then",
    [[upper_at(), serving("Where")], [upper_at()]],
    ids=["another protocol", "the service is gone"],
)
def test_these_drain(daemon: Callable[..., Daemon], then: list[Config]) -> None:
    """Told at once, served on, ended at graceful_timeout."""
    workers = {"count": 1, "graceful_timeout": "700ms"}
    running = daemon(services=[upper_at(), serving("Later")], workers=workers)
    client = running.client(running.address("mine"))
    moves = running.client(running.address("upper"))
    moves.ask(b"a")
    client.sock.sendall(b"!")
    old = int(client.line())
    begin = time.monotonic()
    running.reload({"services": then, "workers": workers})
    assert client.line() == b"goodbye"
    assert time.monotonic() - begin < 0.7
    assert pid_of(client) == old
    running.wait_log(r"1 connections moved")
    assert client.rest() == b""
    running.wait_workers(1, generation=2)
    running.wait_log("closing the last 1 connections")
    assert moves.ask(b"b") == b"B"


def test_idle_ones_are_closed(daemon: Callable[..., Daemon]) -> None:
    """After five seconds of silence, long before graceful_timeout."""
    running = daemon(services=[upper_at(), serving("Where")])
    client = running.client(running.address("mine"))
    pid_of(client)
    begin = time.monotonic()
    running.reload({"services": [upper_at()]})
    assert client.is_ended()
    assert 4 < time.monotonic() - begin < 7
    running.wait_workers(2, generation=2, timeout=3)


def test_goodbyes_are_spread(daemon: Callable[..., Daemon]) -> None:
    """200 of 1,000: a fifth of the five seconds."""
    workers = {"count": 1, "graceful_timeout": "3s", "drain_spread": "5s"}
    running = daemon(services=[serving("Stays")], workers=workers)
    clients = [running.client(running.address("mine")) for _ in range(200)]
    assert all(pid_of(client) for client in clients)
    running.reload()
    begin = time.monotonic()
    for client in clients:
        client.sock.setblocking(False)
    when: list[float] = []

    def look() -> bool:
        for client in clients:
            try:
                if client.sock.recv(100):
                    when.append(time.monotonic() - begin)
            except BlockingIOError:
                pass
        return len(when) == 200

    eventually(look, 4, "goodbyes")
    assert 0.6 < when[-1] < 1.5
    assert when[100] - when[0] > 0.2
    running.hang_up()
    running.wait_workers(1, generation=2)


def test_goodbye_is_told_once(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[serving("Stays")], workers={"count": 1, "drain_spread": 0})
    client = running.client(running.address("mine"))
    pid = pid_of(client)
    running.reload()
    assert client.line() == b"goodbye"
    running.reload()
    running.wait_log("connections moved", count=3)  # of generation 1 twice, of 2 once
    for _ in range(3):
        assert pid_of(client) == pid  # and not another goodbye
    client.close()
    running.wait_workers(1, generation=3)


def test_the_service_goes_while_it_waits_to_move(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(), serving("Later")], workers={"count": 1})
    client = running.client(running.address("mine"))
    old = pid_of(client)
    running.reload()
    running.reload({"services": [upper_at()], "workers": {"count": 1}})
    client.sock.sendall(b"!")
    assert client.line() in (b"goodbye", b"%d" % old)
    assert client.line() in (b"goodbye", b"%d" % old)
    assert pid_of(client) == old
    client.close()
    running.wait_workers(1, generation=3)


def test_term_while_one_waits_to_move(daemon: Callable[..., Daemon]) -> None:
    workers = {"count": 1, "graceful_timeout": "2s"}
    running = daemon(services=[serving("Later")], workers=workers)
    client = running.client(running.address("mine"))
    pid_of(client)
    running.reload()
    running.send(signal.SIGTERM)
    begin = time.monotonic()
    assert client.line() == b"goodbye"
    assert time.monotonic() - begin < 1
    client.close()
    assert running.wait_exit() == 0


def test_the_only_heir_dies_and_its_successor_takes_over(daemon: Callable[..., Daemon]) -> None:
    """What has not moved stays, without a goodbye, until there is an heir again."""
    running = daemon(services=[serving("Later")], workers={"count": 1, "drain_spread": 0})
    client = running.client(running.address("mine"))
    old = pid_of(client)
    running.reload()
    (heir,) = running.workers(2)
    running.send(signal.SIGKILL, heir.pid)
    running.wait_log("generation 2\\) is ready")
    running.expect("killed by SIGKILL")
    running.allow("next try in")
    assert pid_of(client) == old
    client.ask(b"!", len(str(old)) + 1)
    running.wait_workers(1, generation=2, timeout=3)
    assert pid_of(client) in pids(running, 2)


# -- storms ------------------------------------------------------------------------------------


def test_fifty_hups_in_a_second(daemon: Callable[..., Daemon]) -> None:
    """Coalesced; and no more than max_old_generations are leaving at a time."""
    running = daemon(
        services=[serving("Stays")],
        workers={"count": 1, "max_old_generations": 2, "graceful_timeout": "1s"},
    )
    most = 0
    clients = []
    for _ in range(50):
        running.send(signal.SIGHUP)
        client = running.client(running.address("mine"))
        client.sock.sendall(b"?")
        clients.append(client)
        most = max(most, len({worker.generation for worker in running.workers()}))
        time.sleep(0.01)
    assert all(client.line() for client in clients)
    assert 2 <= most <= 4  # one in force, two that leave, one that starts
    assert running.count_log("reload done") < 15
    running.hang_up()
    done = running.count_log("reload done")
    running.reload()
    eventually(lambda: len({worker.generation for worker in running.workers()}) == 1, 8)
    assert running.count_log("reload done") > done


def test_a_reload_that_waits_is_done_in_the_end(daemon: Callable[..., Daemon]) -> None:
    workers = {"count": 1, "max_old_generations": 1}
    running = daemon(services=[serving("Stays")], workers=workers)
    client = running.client(running.address("mine"))
    pid_of(client)
    running.reload()
    running.send(signal.SIGHUP)
    running.wait_log("reload waits")
    assert running.count_log("reload done") == 1
    client.close()
    running.wait_log("reload done: generation 3")
    running.wait_workers(1, generation=3)
