"""Blocking handlers: threads, and what happens when there are none left or one does not return."""

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from certificates import Authority
from control import Control
from harness import Config, Daemon, upper_at
from processes import eventually

Start = Callable[..., Daemon]


def blocking(name: str, **settings: Any) -> Config:
    return {"name": name, "protocol": f"blocking:{name}", "bind": "127.0.0.1:0", **settings}


def native() -> Config:
    return {**upper_at(), "name": "native", "protocol": "upper"}


def test_lines_from_many_clients(daemon: Start) -> None:
    running = daemon(services=[blocking("Upper"), native()])
    clients = [running.client(running.address("Upper")) for _ in range(12)]
    for _ in range(3):
        for client in clients:
            assert client.ask(b"hello\n") == b"HELLO\n"
    big = b"x" * 500_000 + b"\n"
    sender = threading.Thread(target=clients[0].sock.sendall, args=(big,))
    sender.start()
    assert clients[0].read(len(big)) == big.upper()
    sender.join()
    clients[1].half_close()
    assert clients[1].rest() == b""
    assert running.client(running.address("native")).ask(b"x") == b"X"


def test_options_and_facts(daemon: Start) -> None:
    running = daemon(services=[blocking("Greet", options={"greeting": "hi"})])
    client = running.client(running.address("Greet"))
    ours, theirs = client.sock.getsockname(), client.sock.getpeername()
    assert client.line().decode() == str(("hi", ours, theirs, "Greet"))
    assert client.rest() == b""


def test_wrong_options_have_places(
    run: Callable[..., Any], make_daemon: Callable[[Config], Daemon]
) -> None:
    made = make_daemon({"services": [blocking("Greet", options={"greting": 1})]})
    env = {**os.environ, **made.environment}
    shown = run("--config", str(made.config_file), "--check", env=env).stdout
    assert "services.Greet.options.greeting: is required" in shown
    assert "there is no such option; did you mean 'greeting'? (there are: greeting)" in shown


def test_no_thread_left(daemon: Start) -> None:
    """New clients wait in the kernel, not in the worker; other services do not notice."""
    running = daemon(services=[blocking("Upper", threads=2), native()], workers={"count": 1})
    first = [running.client(running.address("Upper")) for _ in range(2)]
    assert [client.ask(b"a\n") for client in first] == [b"A\n"] * 2
    third = running.client(running.address("Upper"))
    third.sock.sendall(b"b\n")
    assert running.client(running.address("native")).ask(b"x") == b"X"
    third.sock.setblocking(False)
    try:
        third.sock.recv(1)
        raise AssertionError("somebody serves it")
    except BlockingIOError:
        third.sock.setblocking(True)
    first[0].close()
    assert third.read(2) == b"B\n"


def test_who_has_no_thread_left_leaves_clients_to_others(daemon: Start) -> None:
    running = daemon(services=[blocking("Trouble", threads=1)], workers={"count": 3})
    pids = {running.client(running.address("Trouble")).line() for _ in range(3)}
    assert len(pids) == 3


def test_what_a_handler_raises_ends_its_own_connection(daemon: Start) -> None:
    running = daemon(services=[blocking("Trouble")], workers={"count": 1})
    good = running.client(running.address("Trouble"))
    pid = good.line()
    for order, error in ((b"raise\n", "ValueError"), (b"exit\n", "SystemExit")):
        client = running.client(running.address("Trouble"))
        host, port = client.sock.getsockname()
        client.ask(order, len(pid) + 1)
        assert client.is_ended()
        running.wait_log(rf"Trouble: Trouble raised {error}; closing .* {host}:{port}")
        running.expect(f"Trouble raised {error}")
    client = running.client(running.address("Trouble"))
    assert client.line() == pid
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()  # with RST: no error of anybody's
    assert good.ask(b"x\n") == b"x\n"


def test_idle_timeout(daemon: Start) -> None:
    running = daemon(services=[blocking("Upper", idle_timeout="300ms")])
    client = running.client(running.address("Upper"))
    assert client.ask(b"x\n") == b"X\n"
    assert client.is_ended()
    running.wait_log("Upper: 127.0.0.1:.* timed out, closing")


def test_a_stuck_thread_is_reported_once_and_keeps_nobody(daemon: Start) -> None:
    running = daemon(
        services=[blocking("Trouble")],
        workers={"count": 1, "stuck_timeout": "1s", "graceful_timeout": "1s"},
    )
    stuck, other = (running.client(running.address("Trouble")) for _ in range(2))
    pid = stuck.line()
    assert other.line() == pid
    stuck.sock.sendall(b"sleep\n")
    host, port = stuck.sock.getsockname()
    line = running.wait_log("has not touched its connection", 5)
    assert re.search(rf"Trouble: thread Trouble-\d has not touched .* from {host}:{port}", line)
    assert "in rest" in line
    assert "time.sleep(60)" in line
    assert other.ask(b"x\n") == b"x\n"
    other.close()
    running.stop()
    assert running.count_log("has not touched") == 1
    running.expect("has not touched", rf"the handler of {host}:{port} has not returned")


def test_a_drain_tells_handlers_and_waits_for_them(daemon: Start) -> None:
    running = daemon(services=[blocking("Trouble")], workers={"count": 1})
    client = running.client(running.address("Trouble"))
    pid = int(client.line())
    client.sock.sendall(b"drain\n")
    running.reload()
    assert client.line() == b"draining"
    assert client.line() == b"drain"
    assert client.ask(b"more\n") == b"more\n"
    client.close()
    eventually(lambda: pid not in [worker.pid for worker in running.workers()], 5)


def test_at_the_deadline_they_read_no_more(daemon: Start) -> None:
    running = daemon(services=[blocking("Upper")], workers={"count": 1, "graceful_timeout": "1s"})
    client = running.client(running.address("Upper"))
    assert client.ask(b"x\n") == b"X\n"
    running.send(signal.SIGTERM)
    assert client.rest() == b""
    running.wait_exit(3)


def test_a_fast_stop(daemon: Start, tmp_path: Path) -> None:
    running = daemon(services=[blocking("Trouble")])
    client = running.client(running.address("Trouble"))
    client.line()
    client.sock.sendall(b"drain\n")
    running.send(signal.SIGINT)
    assert client.is_ended()
    running.wait_exit(3)
    running.allow("has not returned; leaving it")


def test_tls(daemon: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    running = daemon(
        services=[
            blocking("Upper", tls={**authority.issue("localhost"), "handshake_timeout": "300ms"})
        ]
    )
    context = authority.client()
    client = running.client(running.address("Upper"))
    client.sock = context.wrap_socket(
        client.sock, server_hostname="localhost", suppress_ragged_eofs=False
    )
    big = b"x" * 100_000 + b"\n"
    assert client.ask(b"hello\n") == b"HELLO\n"
    assert client.ask(big) == big.upper()
    silent = running.client(running.address("Upper"))
    plain = running.client(running.address("Upper"))
    plain.sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert silent.is_ended()
    with contextlib.suppress(ConnectionResetError):
        assert plain.rest()[:2] in (b"", b"\x15\x03")  # an alert, and no answer
    running.wait_log("Upper: 127.0.0.1:.*: no TLS: ", count=2)
    assert client.sock.unwrap() is not None  # it says goodbye in order


def test_starttls(daemon: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {**authority.issue("localhost"), "starttls": True}
    running = daemon(services=[blocking("Start", tls=tls)])
    client = running.client(running.address("Start"))
    assert client.line() == b"plain"
    context = authority.client()
    client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
    assert client.line() == b"secret"
    client.sock.setblocking(True)
    assert client.sock.unwrap() is not None


def test_bytes_are_counted_while_a_handler_works(daemon: Start) -> None:
    """And its connection is told of as any other."""
    running = daemon(services=[blocking("Upper")])
    client = running.client(running.address("Upper"))
    assert client.ask(b"hello\n") == b"HELLO\n"
    control = Control(running)
    seen: dict[str, Any] = {}

    def counted() -> bool:  # sent bytes count when the thread's send() has returned
        ((found,), _) = control.parts("connections")
        seen.update(found)
        return (seen["service"], seen["bytes_in"], seen["bytes_out"]) == ("Upper", 6, 6)

    eventually(counted)
    control.parts("kill", ids=[seen["id"]])
    assert client.is_ended()
    control.close()


NO_THREADS = """
import os, threading
from blocking import Upper

real = threading.Thread.start

def start(thread):
    if os.path.exists("poor"):
        raise RuntimeError("can't start new thread")
    real(thread)

threading.Thread.start = start
"""


def test_the_system_gives_no_threads(make_daemon: Callable[[Config], Daemon]) -> None:
    service = {"name": "mine", "protocol": "mine:Upper", "bind": "127.0.0.1:0", "threads": 2}
    made = make_daemon({"services": [service, native()], "workers": {"count": 1}})
    made.write_module("mine", NO_THREADS)
    made.start()
    (made.directory / "poor").touch()
    assert made.client(made.address("mine")).is_ended()
    made.wait_log("thread 0 of 2: can't start new thread")
    made.expect("can't start new thread", "no thread can be started")
    assert made.client(made.address("native")).ask(b"a") == b"A"
    (made.directory / "poor").unlink()
    first = made.client(made.address("mine"))
    assert first.ask(b"b\n") == b"B\n"
    (made.directory / "poor").touch()
    second = made.client(made.address("mine"))  # the one thread that there is serves it later
    second.sock.sendall(b"c\n")
    made.wait_log("thread 1 of 2: can't start new thread")
    first.close()
    assert second.read(2) == b"C\n"
