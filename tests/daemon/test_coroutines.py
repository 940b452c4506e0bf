"""Coroutine handlers and asyncio protocols as services, beside native ones."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from harness import Config, Daemon, upper_at
from processes import eventually

Start = Callable[..., Daemon]


def coroutine(name: str, **settings: Any) -> Config:
    return {"name": name, "protocol": f"coroutines:{name}", "bind": "127.0.0.1:0", **settings}


def test_lines_beside_a_native_service(daemon: Start) -> None:
    running = daemon(
        services=[
            coroutine("upper", options={"greeting": "hi\n", "times": 2}),
            upper_at() | {"name": "native", "protocol": "upper"},
        ]
    )
    clients = [running.client(running.address("upper")) for _ in range(8)]
    natives = [running.client(running.address("native")) for _ in range(8)]
    assert {client.line() for client in clients} == {b"hi"}
    for _ in range(3):
        for client, native in zip(clients, natives, strict=True):
            assert client.ask(b"hello\n", 12) == b"HELLO\nHELLO\n"
            assert native.ask(b"hello\n") == b"HELLO\n"
    big = b"x" * 50_000 + b"\n"
    assert clients[0].ask(big, 2 * len(big)) == big.upper() * 2
    clients[1].half_close()
    assert clients[1].rest() == b""


def test_clients_come_to_all_workers_evenly(daemon: Start) -> None:
    """One epoll object and no other: each connection wakes one worker, and all have their turn."""
    running = daemon(services=[coroutine("trouble")], workers={"count": 3})
    pids = [running.client(running.address("trouble")).line() for _ in range(60)]
    counts = [pids.count(pid) for pid in set(pids)]
    assert len(counts) == 3
    assert max(counts) <= 22


def test_wrong_options_have_places(
    run: Callable[..., Any], tmp_path: Path, make_daemon: Callable[[Config], Daemon]
) -> None:
    made = make_daemon({"services": [coroutine("upper", options={"greting": "x", "times": "2"})]})
    env = {**os.environ, **made.environment}
    shown = run("--config", str(made.config_file), "--check", env=env).stdout.splitlines()
    assert [line.split(": ", 2)[1:] for line in shown] == [
        [
            "services.upper.options.greting",
            "there is no such option; did you mean 'greeting'? (there are: greeting, times)",
        ],
        ["services.upper.options.times", "Expected `int`, got `str`"],
    ]
    assert all(":" in line.split(": ")[0].removeprefix(str(made.config_file)) for line in shown)


def test_facts(daemon: Start) -> None:
    running = daemon(services=[coroutine("facts")])
    client = running.client(running.address("facts"))
    ours, theirs = client.sock.getsockname(), client.sock.getpeername()
    assert client.line().decode() == f"{ours} {theirs} 'facts' True"


def test_what_a_handler_raises_ends_its_own_connection(daemon: Start) -> None:
    running = daemon(services=[coroutine("trouble")], workers={"count": 1})
    good = running.client(running.address("trouble"))
    pid = good.line()
    for order, error in ((b"raise\n", "ValueError"), (b"exit\n", "SystemExit")):
        client = running.client(running.address("trouble"))
        host, port = client.sock.getsockname()
        client.ask(order, len(pid) + 1)
        assert client.is_ended()
        running.wait_log(rf"trouble: trouble raised {error}; closing .* {host}:{port}")
        running.expect(f"trouble raised {error}")
    running.expect("SystemExit in a task; it ends the task, not the worker")
    assert good.ask(b"x\n", 11) == b"no trouble\n"
    client = running.client(running.address("trouble"))
    assert client.line() == pid
    client.sock.sendall(b"reset\n")
    client.sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: close with RST
    client.close()
    assert running.client(running.address("trouble")).line() == pid


def test_a_stuck_coroutine_is_reported_with_its_peer(daemon: Start) -> None:
    running = daemon(services=[coroutine("trouble")], workers={"stuck_timeout": "1s"})
    client = running.client(running.address("trouble"))
    pid = int(client.line())
    host, port = client.sock.getsockname()
    client.sock.sendall(b"spin\n")
    running.wait_log(rf"pid {pid}, .* killed by SIGABRT", 10)
    running.wait_workers(2)
    running.expect(
        "silent for",
        "Fatal Python error: Aborted",
        r'File ".*/coroutines\.py", line \d+ in trouble',
        rf"worker \d was serving {host}:{port} \(trouble\) when it was aborted",
        "killed by SIGABRT",
    )
    running.allow(
        "^$", "^Current thread", "^Thread", '^  File "', "^Extension modules: ", "next try in"
    )


def test_a_drain_tells_and_at_last_cancels(daemon: Start) -> None:
    running = daemon(services=[coroutine("waits")], workers={"graceful_timeout": "2s"})
    goes, stays = (running.client(running.address("waits")) for _ in range(2))
    pids = {int(client.line()) for client in (goes, stays)}
    running.reload()
    assert goes.ask(b"bye\n", 9) == b"draining\n"
    assert goes.rest() == b"end\n"
    assert stays.ask(b"go on\n", 9) == b"draining\n"
    assert stays.rest() == b"cancelled\nend\n"
    eventually(lambda: not pids & {worker.pid for worker in running.workers()}, 5)


def test_one_that_will_not_be_cancelled_does_not_keep_the_worker(daemon: Start) -> None:
    running = daemon(
        services=[coroutine("stubborn")], workers={"graceful_timeout": "1s", "count": 1}
    )
    client = running.client(running.address("stubborn"))
    pid = int(client.line())
    running.send(signal.SIGTERM)
    assert client.line() == b"no"
    assert client.rest() == b""
    running.wait_exit(5)
    running.expect(rf"warning asyncio\[{pid}\]: .* goes on after it was cancelled")


def test_a_fast_stop_cancels_at_once(daemon: Start) -> None:
    running = daemon(services=[coroutine("waits")])
    client = running.client(running.address("waits"))
    client.line()
    running.send(signal.SIGINT)
    assert client.is_ended()
    running.wait_exit(3)


def test_a_drain_waits_for_work_without_a_connection(daemon: Start, tmp_path: Path) -> None:
    running = daemon(services=[coroutine("outlives")], workers={"count": 1})
    client = running.client(running.address("outlives"))
    client.line()
    client.sock.sendall(f"{tmp_path}/proof\n".encode())
    assert client.rest() == b""
    running.stop()
    assert (tmp_path / "proof").read_text() == "done"


def test_native_connections_beside_move_at_a_reload(daemon: Start) -> None:
    native = upper_at() | {"name": "native", "protocol": "upper"}
    running = daemon(services=[coroutine("waits"), native], workers={"count": 1})
    moves, stays = (
        running.client(running.address("native")),
        running.client(running.address("waits")),
    )
    assert moves.ask(b"x") == b"X"
    old = int(stays.line())
    running.reload()
    running.wait_log("1 connections moved")
    assert moves.ask(b"y") == b"Y"
    running.send(signal.SIGKILL, old)  # which holds the other one only
    running.expect("killed by SIGKILL")
    running.allow("next try in")
    assert moves.ask(b"z") == b"Z"


def test_everything_else_of_asyncio(daemon: Start) -> None:
    running = daemon(services=[coroutine("everything")], workers={"count": 1})
    client = running.client(running.address("everything"))
    assert client.line() == b"child"
    assert client.line() == b"thread"
    assert client.line().startswith(b"SIGTERM is the worker's own")
    # The worker still hears its own signals.
    running.stop()


@pytest.mark.parametrize(
    ("name", "settings", "answer"),
    [
        ("Shout", {}, b"HELLO!"),
        ("Shout", {"options": {"mark": "#"}}, b"HELLO#"),
        ("make_shout", {"runtime": "asyncio"}, b"HELLO?"),
        ("Buffered", {}, b"HELLO"),
    ],
)
def test_asyncio_protocols(
    daemon: Start, name: str, settings: dict[str, Any], answer: bytes
) -> None:
    running = daemon(services=[coroutine(name, **settings)])
    client = running.client(running.address(name))
    assert client.ask(b"hello", len(answer)) == answer
    client.half_close()
    assert client.rest() == b""


@pytest.mark.parametrize("name", ["upper", "Buffered"])
def test_with_tls_and_limits(daemon: Start, tmp_path: Path, name: str) -> None:
    """Neither knows of the other: what a service's connections are made of is put together."""
    authority = Authority(tmp_path)
    settings = {"tls": authority.issue("localhost"), "max_age": "1h", "write_timeout": "9s"}
    for more in (settings, {"write_timeout": "9s"}):
        running = daemon(services=[coroutine(name, **more)])
        client = running.client(running.address(name))
        if "tls" in more:
            context = authority.client()
            client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
        assert client.ask(b"hello\n") == b"HELLO\n"
        big = b"x" * 60_000 + b"\n"
        assert client.ask(big) == big.upper()


def test_a_worker_without_coroutines_has_no_asyncio(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    made = make_daemon({"services": [{"name": "has", "protocol": "has:Has", "bind": "[::1]:0"}]})
    made.write_module(
        "has",
        "import sys\n"
        "from epolld import Protocol\n"
        "class Has(Protocol):\n"
        "    def data_received(self, data):\n"
        "        unwanted = ('asyncio', 'ssl', 'concurrent', 'socketserver')\n"
        "        found = [name for name in unwanted if name in sys.modules]\n"
        "        self.transport.write(repr(found).encode() + b'\\n')\n",
    )
    running = made.start()
    assert running.client(running.address("has")).ask(b"?", 3) == b"[]\n"
