"""The lesson on epoll: its programs run, print what the page says, and its servers serve."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/epoll"
PAGE = (ROOT / "docs/epoll.md").read_text()
HELPERS = ("shown", "workers")  # imported by the others
BLOCK = re.compile(r"^<!-- (file|output): (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SHOWN = {(kind, path): body for kind, path, body in BLOCK.findall(PAGE)}
SERVERS = sorted(path.stem for path in FOLDER.glob("upper_*.py"))
LESSONS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
EXAMPLES = [name for name in LESSONS if name not in SERVERS]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_the_page_says(name: str) -> None:
    path = f"examples/epoll/{name}.py"
    assert SHOWN["file", path] == (ROOT / path).read_text(), f"docs/epoll.md shows another {name}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == SHOWN["output", path]


def test_the_page_shows_every_example() -> None:
    assert {path for _, path in SHOWN} == {f"examples/epoll/{name}.py" for name in EXAMPLES}
    for server in SERVERS:
        assert f"../examples/epoll/{server}.py" in PAGE


@contextmanager
def serving(name: str) -> Iterator[int]:
    """The port of a server of the lesson, on a free port."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline().rpartition(" ")[2])
            assert process.poll() is None, "the server died"
        finally:
            process.kill()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def receive(connection: socket.socket, size: int) -> bytes:
    text = bytearray()
    while len(text) < size and (part := connection.recv(size - len(text))):
        text += part
    return bytes(text)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_of_the_lesson_serves(name: str) -> None:
    with serving(name) as port, connect(port) as first, connect(port) as second:
        for text in (b"one", b"two"):
            for client in (first, second):
                client.sendall(text)
            for client in (second, first):
                assert receive(client, 3) == text.upper()
        with connect(port) as third:
            third.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        first.shutdown(socket.SHUT_WR)
        assert first.recv(1) == b"", "the end is answered with the end"
        second.sendall(b"still here")
        assert receive(second, 10) == b"STILL HERE"


def fill(slow: socket.socket, other: socket.socket, text: bytes, limit: int) -> int:
    """Send until nothing is taken any more, or the limit; returns how much was."""
    slow.setblocking(False)
    sent = turns = 0
    while sent < limit and turns < 500:
        try:
            sent += slow.send(text[sent % len(text) :])
            turns = 0
        except BlockingIOError:
            turns += 1
            other.sendall(b"x")  # answered, so the server has had a turn and could have read
            assert other.recv(1) == b"X"
    slow.settimeout(20)
    return sent


@pytest.mark.parametrize("name", SERVERS)
def test_it_keeps_what_a_slow_client_does_not_take(name: str) -> None:
    text = bytes(range(97, 123)) * 10_000
    limit = 60_000_000  # more than the kernel keeps for a connection, on both sides
    with serving(name) as port, connect(port) as slow, connect(port) as other:
        sent = fill(slow, other, text, limit)
        assert sent < limit, "it takes without end what it cannot give back"
        slow.shutdown(socket.SHUT_WR)
        assert receive(slow, sent + 1) == (text.upper() * (sent // len(text) + 1))[:sent]
