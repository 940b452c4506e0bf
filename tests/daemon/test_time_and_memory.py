"""Limits on time and memory, on the real daemon: each has its own cause, log line and end."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

from harness import Client, Daemon, upper_at

MIB = 1 << 20


def memory(pid: int) -> int:
    """Bytes of anonymous memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no RssAnon of {pid}")


def pours(**settings: object) -> dict[str, object]:
    """A service that writes without looking who reads."""
    return {"name": "pours", "protocol": "guarded:Pours", "bind": "127.0.0.1:0", **settings}


def test_silence_is_not_an_idle_connection(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(first_byte_timeout="700ms")])
    begin = time.monotonic()
    silent, talker = running.client(), running.client()
    assert talker.ask(b"a") == b"A"
    assert silent.is_ended()
    assert 0.7 <= time.monotonic() - begin < 3
    assert talker.ask(b"a") == b"A"
    running.expect(r"upper: 127.0.0.1:\d+: sent nothing for 0.7s, closing")


def test_maximum_age(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(max_age="500ms")])
    client = running.client()
    assert client.ask(b"a") == b"A"
    assert client.is_ended()


def test_a_client_that_never_reads(daemon: Callable[..., Daemon]) -> None:
    """The service writes 1 GB to it; the worker grows by the limit, and others are served."""
    limits = {"write_buffer": "4m"}
    running = daemon(services=[pours(limits=limits), upper_at()], workers={"count": 1})
    (worker,) = running.wait_workers(1)
    other = running.client(running.address("upper"))
    assert other.ask(b"a") == b"A"
    before = memory(worker.pid)
    client = running.client(running.address("pours"))
    client.sock.sendall(b"16384")
    running.wait_log(r"pours: 127.0.0.1:\d+: \d+ bytes wait to be sent, more than write_buffer")
    assert other.ask(b"a") == b"A"
    assert memory(worker.pid) - before < 4 * MIB + 2 * MIB
    running.expect("write_buffer")


def test_many_clients_that_do_not_read(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[pours(), upper_at()], workers={"count": 1, "max_buffered": "8m"})
    (worker,) = running.wait_workers(1)
    other = running.client(running.address("upper"))
    assert other.ask(b"a") == b"A"
    before = memory(worker.pid)
    clients = []
    for _ in range(10):
        client = Client.__new__(Client)
        client.sock = socket.socket()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = running.address("pours").rpartition(":")
        client.sock.settimeout(8)
        client.sock.connect((host, int(port)))
        client.sock.sendall(b"100")  # 6.25 MiB
        clients.append(client)
    running.wait_log("in this worker, more than max_buffered", count=3)
    assert other.ask(b"a") == b"A"
    assert memory(worker.pid) - before < 8 * MIB + 8 * MIB
    running.expect("near max_buffered", "more than max_buffered")
    for client in clients:
        client.close()


def test_an_answer_that_nobody_takes(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[pours(write_timeout="500ms")])
    client = running.client(running.address("pours"))
    client.sock.sendall(b"160")
    running.wait_log("took nothing of its answer for 0.5s, closing")
    running.expect("took nothing")


def test_message_timeout(daemon: Callable[..., Daemon]) -> None:
    code = "from epolld import LineProtocol\nclass Lines(LineProtocol):\n    pass\n"
    running = daemon()
    running.write_module("lines_of_mine", code)
    service = upper_at(protocol="lines_of_mine:Lines", message_timeout="600ms")
    running.reload({"services": [service]})
    client = running.client()
    begin = time.monotonic()
    client.sock.settimeout(0.05)
    data = b"?"
    while data:
        try:
            client.sock.sendall(b"x")
            data = client.sock.recv(1)
        except TimeoutError:
            assert time.monotonic() - begin < 5
        except OSError:
            break
    assert time.monotonic() - begin >= 0.6
    running.expect("a message not whole after 0.6s, closing")


def test_handlers_in_threads_and_coroutines_have_limits(daemon: Callable[..., Daemon]) -> None:
    limit = {"first_byte_timeout": "500ms", "bind": "127.0.0.1:0"}
    services = [
        {"name": "threads", "protocol": "blocking:Upper", **limit},
        {"name": "tasks", "protocol": "coroutines:upper", **limit},
        {"name": "age", "protocol": "blocking:Upper", "bind": "127.0.0.1:0", "max_age": "500ms"},
    ]
    running = daemon(services=services)
    clients = [running.client(running.address(name)) for name in ("threads", "tasks", "age")]
    for client in clients:
        assert client.is_ended()
    running.expect("threads: .*: sent nothing for 0.5s", "tasks: .*: sent nothing for 0.5s")
