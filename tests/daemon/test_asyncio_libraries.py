"""Protocols of libraries for asyncio run unchanged, driven by clients that know nothing of us."""

import asyncio
import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path

import needs
from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol
from certificates import Authority
from harness import Config, Daemon

Start = Callable[..., Daemon]


def smtp(file: Path, **options: str) -> Config:
    """A service of aiosmtpd's protocol."""
    return {
        "name": "smtp",
        "protocol": "libraries:Smtp",
        "options": {"file": str(file), **options},
        "bind": "127.0.0.1:0",
    }


def test_smtp_by_smtplib_with_starttls(daemon: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    box = tmp_path / "box"
    running = daemon(services=[smtp(box, **authority.issue("localhost"))])
    _, port = running.address("smtp").split(":")
    body = "a line\r\n" * 20_000
    with smtplib.SMTP("localhost", int(port), timeout=10) as client:
        client.starttls(context=authority.client())
        client.sendmail("eva@example.com", ["ada@example.org"], f"Subject: x\r\n\r\n{body}")
        client.sendmail("bob@example.com", ["ada@example.org"], "Subject: y\r\n\r\nshort\r\n")
    found = box.read_bytes()
    assert found.startswith(b"eva@example.com TLS:True\nSubject: x\r\n\r\na line\r\n")
    assert found.count(b"a line\r\n") == 20_000
    assert found.endswith(b"bob@example.com TLS:True\nSubject: y\r\n\r\nshort\r\n")
    # Its own end, not by a time limit: the reload finds nothing to wait for.
    running.reload()
    running.wait_log("generation 1.* exited with status 0", count=2)


def test_smtp_by_swaks(daemon: Start, tmp_path: Path) -> None:
    box = tmp_path / "box"
    running = daemon(services=[smtp(box)])
    command = [needs.tool("swaks"), "--server", running.address("smtp"), "--helo", "test"]
    command += ["--from", "eva@example.com", "--to", "ada@example.org", "--body", "from swaks"]
    subprocess.run(command, check=True, timeout=20, stdout=subprocess.DEVNULL)
    assert b"from swaks" in box.read_bytes()


class Client(WebSocketClientProtocol):
    """Sends some messages, one after the other, and collects the answers."""

    def onOpen(self) -> None:
        self.answers: list[bytes] = []
        self.sendMessage(b"hello")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.answers.append(payload)
        if len(self.answers) == 1:
            self.sendMessage(b"x" * 300_000, isBinary=True)
        else:
            self.sendClose()

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        self.factory.done.set_result((wasClean, self.answers))


def test_websockets_by_the_library_s_own_client(daemon: Start) -> None:
    service = {
        "name": "websocket",
        "protocol": "libraries:websocket",
        "runtime": "asyncio",
        "bind": "127.0.0.1:0",
    }
    running = daemon(services=[service])
    host, port = running.address("websocket").split(":")

    async def talk() -> tuple[bool, list[bytes]]:
        loop = asyncio.get_running_loop()
        factory = WebSocketClientFactory(f"ws://{host}:{port}", loop=loop)
        factory.protocol = Client
        factory.done = loop.create_future()
        await loop.create_connection(factory, host, int(port))
        found: tuple[bool, list[bytes]] = await asyncio.wait_for(factory.done, 10)
        return found

    clean, answers = asyncio.run(talk())
    assert clean
    assert answers == [b"HELLO", b"X" * 300_000]
