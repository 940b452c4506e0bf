"""A worker dies: another takes its place, at once or after a back-off."""

import signal
import time
from collections.abc import Callable

from harness import Config, Daemon
from processes import eventually

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def test_a_killed_worker_is_replaced_within_a_second(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    victim = running.wait_workers(2)[1]
    begin = time.monotonic()
    running.send(signal.SIGKILL, victim.pid)
    running.wait_log(r"worker 1 \(pid \d+, generation 1\) is ready", 3)
    assert time.monotonic() - begin < 1
    after = running.wait_workers(2)
    assert [worker.slot for worker in after] == [0, 1]
    assert victim.pid not in [worker.pid for worker in after]
    running.expect(r"worker 1 \(pid \d+, generation 1\) killed by SIGKILL")
    running.allow("next try in 0.1s")  # if it had served for less than a second
    assert running.client().ask(b"a") == b"A"


def test_siblings_go_on_serving(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO])
    clients = [running.client(running.address("who")) for _ in range(4)]
    pids = [client.line() for client in clients]
    running.send(signal.SIGKILL, int(pids[0]))
    for client, pid in zip(clients, pids, strict=True):
        if pid == pids[0]:
            assert client.is_ended()
        else:
            assert client.ask(b"?", len(pid) + 1).strip() == pid
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_a_segmentation_fault_leaves_its_stacks(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.send(signal.SIGSEGV, running.wait_workers(2)[0].pid)
    running.wait_log("killed by SIGSEGV")
    running.wait_log("is ready")
    running.expect("Fatal Python error: Segmentation fault", r'File ".*/loop\.py", line \d+ in run',
                   "killed by SIGSEGV")  # fmt: skip
    running.allow("^$", "^Current thread", '^  File "', "^Extension modules: ", "next try in")


def test_back_off_when_it_dies_again_and_again(make_daemon: Callable[[Config], Daemon]) -> None:
    """It cannot boot any more: the pauses grow, and the sibling serves meanwhile."""
    code = """
import os
if os.path.exists("trap"):
    os._exit(9)
from protocols import Who as P
"""
    made = make_daemon({"services": [{"name": "who", "protocol": "mine:P", "bind": "127.0.0.1:0"}]})
    made.write_module("mine", code)
    made.start()
    (made.directory / "trap").touch()
    victim = made.wait_workers(2)[0]
    made.send(signal.SIGKILL, victim.pid)
    for delay in ("0.1", "0.2", "0.4", "0.8"):
        made.wait_log(rf"worker 0: next try in {delay}s", 5)
    assert int(made.client(made.address("who")).line()) != victim.pid
    # One more if the victim had served for a second: then its successor was started at once.
    assert made.count_log("exited with status 9") in (3, 4)
    (made.directory / "trap").unlink()
    made.wait_log(r"worker 0 .* is ready", 5)
    made.expect("killed by SIGKILL", "exited with status 9", "next try in")


def test_a_reload_ends_the_back_off(make_daemon: Callable[[Config], Daemon]) -> None:
    code = """
import os
if os.path.exists("trap"):
    raise RuntimeError("it is a trap")
from protocols import Who as P
"""
    made = make_daemon({"services": [{"name": "who", "protocol": "mine:P", "bind": "127.0.0.1:0"}]})
    made.write_module("mine", code)
    made.start()
    (made.directory / "trap").touch()
    made.send(signal.SIGKILL, made.wait_workers(2)[0].pid)
    made.wait_log("next try in 0.8s", 5)
    (made.directory / "trap").unlink()
    made.reload()
    made.wait_workers(2, generation=2)
    made.expect("killed by SIGKILL", "cannot boot: .*it is a trap", "exited with status 78")
    made.allow("next try in")


def test_all_workers_die_at_once(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 3})
    before = [worker.pid for worker in running.wait_workers(3)]
    for pid in before:
        running.send(signal.SIGKILL, pid)
    assert running.client().ask(b"a") == b"A"  # it waited in the queue
    running.hang_up()
    eventually(lambda: not {w.pid for w in running.wait_workers(3)} & set(before))
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_a_mistake_at_the_boot_is_told_with_its_place(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    """Nobody's configuration is wrong: what is raised goes into the log as it is."""
    service = {"name": "mine", "protocol": "mine:P"}
    made = make_daemon({"services": [service], "workers": {"count": 1}})
    made.write_module(
        "mine",
        "import epolld.worker.boot\nfrom epolld import Protocol as P\n"
        "epolld.worker.boot.settle_memory = None\n",
    )
    made.launch()
    assert made.wait_exit() == 70
    made.expect(r"worker \d cannot boot.*TypeError", "start failed", r"master\[\d+\]: TypeError")
    made.close_log()
    assert made.count_log("stopped$") == 1
    made.allow("exited with status")
