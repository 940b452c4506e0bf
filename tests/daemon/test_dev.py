"""`epolld --dev`: no configuration, and the code that is being edited is the code that serves."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import COMMAND, Client
from processes import eventually, in_session

from epolld.testing.loglines import LogLines

SHOUT = """\
from epolld import Protocol

class Shout(Protocol):
    def data_received(self, data):
        self.transport.write(data.{method}())
"""

KINDS = {
    "Class": SHOUT.format(method="upper").replace("Shout", "Class"),
    "function": """\
async def function(reader, writer):
    while data := await reader.read(100):
        writer.write(data.upper())
    writer.close()
""",
    "Asyncio": """\
import asyncio

class Asyncio(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data.upper())
""",
    "Blocking": """\
import socketserver

class Blocking(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100):
            self.request.send(data.upper())
""",
}


class Developing(LogLines):
    """A run of `epolld --dev` in a folder with the user's modules."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, name: str, code: str) -> None:
        """Save a module as editors do: a new file in place of the old."""
        new = self.folder / f"{name}.new"
        new.write_text(code)
        new.rename(self.folder / f"{name}.py")

    def start(self, protocol: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--dev", protocol, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
        )
        assert self.process.stderr
        self.read_log(self.process.stderr)

    def serve(self, protocol: str) -> None:
        """Start, and wait until it is ready on a free port."""
        self.start(protocol, "--bind", "127.0.0.1:0")
        self.wait_log("ready: 1 workers")

    def client(self) -> Client:
        return Client(self.find_log("ready: ").split("listening on ")[1].split()[0])

    def ask(self, data: bytes) -> bytes:
        client = self.client()
        try:
            return client.ask(data)
        finally:
            client.close()

    def wait_reload(self, outcome: str, count: int = 1) -> None:
        """Wait for the outcome, and until the new worker alone accepts."""
        self.wait_log(f"reload {outcome}", 15, count)
        session = self.process.pid if self.process else 0
        eventually(lambda: len(in_session(session)) == 2, 10, "one worker is left")

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Developing]:
    dev = Developing(tmp_path)
    yield dev
    if dev.process is not None:
        if dev.process.poll() is None:
            assert dev.stop() == 0
        assert not in_session(dev.process.pid)
        dev.close_log()
        print(*dev.lines, sep="\n")
    assert not list(dev.temporary.iterdir())


def test_an_edit_is_served_and_a_broken_one_is_not(dev: Developing) -> None:
    dev.write("mine", SHOUT.format(method="upper"))
    dev.serve("mine:Shout")
    client = dev.client()
    assert client.ask(b"Hello") == b"HELLO"

    dev.write("mine", SHOUT.format(method="lower"))
    dev.wait_reload("done")
    assert dev.find_log("mine.py has changed: asking for a reload")
    assert client.ask(b"Hello") == b"hello"  # it has moved to the new code

    dev.write("mine", SHOUT.format(method="lower") + "def broken(:\n")
    dev.wait_reload("failed")
    dev.wait_log(r"^    def broken\(:$")  # a traceback over several lines
    dev.wait_log("^SyntaxError: ")
    assert dev.ask(b"Hello") == b"hello"

    dev.write("mine", SHOUT.format(method="title"))
    dev.wait_reload("done", 2)
    assert client.ask(b"hello") == b"Hello"
    client.close()


def test_what_is_beside_is_watched_too(dev: Developing) -> None:
    dev.write("mine", SHOUT.format(method="upper"))
    dev.serve("mine:Shout")
    dev.write("helper", "1 / 0\n")
    dev.write("mine", "import helper\n" + SHOUT.format(method="lower"))
    dev.wait_reload("failed")
    dev.wait_log("^ZeroDivisionError")
    dev.write("helper", "")  # which no worker has ever imported
    dev.wait_reload("done")
    assert dev.ask(b"Hello") == b"hello"


def test_two_edits_of_one_size_within_a_second(dev: Developing) -> None:
    dev.write("mine", SHOUT.format(method="upper"))
    dev.serve("mine:Shout")
    for count, method in enumerate(["lower", "title", "lower"], 1):
        dev.write("mine", SHOUT.format(method=method))
        dev.wait_log("reload done", 15, count)
    dev.wait_reload("done", 3)
    assert dev.ask(b"Hello") == b"hello"
    assert not (dev.folder / "__pycache__").exists()


def test_a_traceback_has_its_lines(dev: Developing) -> None:
    dev.write("mine", SHOUT.format(method="nothing"))
    dev.serve("mine:Shout")
    assert dev.ask(b"a") == b""
    dev.wait_log(r"data_received of Shout raised AttributeError; closing the connection from \S+$")
    dev.wait_log(r"^    self.transport.write\(data.nothing\(\)\)$")
    dev.wait_log("^AttributeError: ")


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_handlers(dev: Developing, kind: str) -> None:
    dev.write("mine", KINDS[kind])
    dev.serve(f"mine:{kind}")
    assert dev.ask(b"hello") == b"HELLO"


def test_the_configuration_that_is_made_up(dev: Developing) -> None:
    dev.write("mine", SHOUT.format(method="upper"))
    printed = subprocess.run(
        [*COMMAND, "--dev", "mine:Shout", "--set=services.Shout.idle_timeout=5s", "--print-config"],
        cwd=dev.folder,
        env={**os.environ, "TMPDIR": str(dev.temporary)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "127.0.0.1:1688" in printed
    assert "idle_timeout: 5s\n" in printed


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("nowhere:Shout", r"--dev: services\.Shout\.protocol: there is no module 'nowhere'"),
        ("no such'thing", r"--dev: services\.service\.protocol: expected "),
    ],
)
def test_a_wrong_name(dev: Developing, protocol: str, message: str) -> None:
    dev.start(protocol, "--bind", "127.0.0.1:0")
    dev.wait_log(message)
    assert dev.process
    assert dev.process.wait(10) != 0


@pytest.mark.parametrize("option", ["--daemonize", "--config=x", "--service=x"])
def test_what_it_goes_without(dev: Developing, option: str) -> None:
    dev.start("mine:Shout", option)
    name = option.partition("=")[0]
    dev.wait_log(f"--dev goes without {name}$")
    assert dev.process
    assert dev.process.wait(10) == 64
