"""The access log: a line a connection when it ends, in the log or in a file that can be rotated."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import needs
from harness import Config, Daemon
from processes import eventually
from test_become_user import interpreter_for_all

LINE = r"upper: 127\.0\.0\.1:\d+: {} after \d+\.\d{{3}}s, {} in, {} out, id \d+$"


def test_a_line_for_each_end(daemon: Callable[..., Daemon]) -> None:
    running = daemon(
        services=[{"name": "upper", "bind": "127.0.0.1:0", "access_log": True}],
    )
    client = running.client()
    assert client.ask(b"hello") == b"HELLO"
    assert not running.find_log("access")
    client.half_close()
    running.wait_log(r" info access\[\d+\]: " + LINE.format("eof", 5, 5))
    assert running.count_log(r"access\[") == 1


def test_a_file_of_its_own(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    where = made.directory / "access.log"
    service = {
        "name": "upper",
        "bind": "127.0.0.1:0",
        "access_log": str(where),
        "idle_timeout": 0.2,
    }
    made.write_config({"services": [service]})
    made.start()
    made.client().ask(b"abc")
    line = eventually(lambda: where.read_text())
    assert re.search(LINE.format("idle_timeout", 3, 3), line.rstrip())
    assert where.stat().st_mode & 0o777 == 0o640
    assert not made.find_log("access")


def test_json_has_the_facts_apart(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    where = made.directory / "access.jsonl"
    service = {"name": "upper", "bind": f"unix:{made.directory}/s", "access_log": str(where)}
    made.write_config(
        {"services": [service], "logging": {"format": "json"}, "workers": {"count": 1}}
    )
    made.launch()
    eventually(lambda: any("ready: " in line for line in made.lines))
    client = made.client(f"unix:{made.directory}/s")
    client.ask(b"abc")
    client.half_close()
    facts = json.loads(eventually(lambda: where.read_text()))["context"]
    id, age = facts.pop("id"), facts.pop("age")
    assert id.isdecimal()
    assert 0 <= age < 10
    assert facts == {
        "service": "upper",
        "peer": "unix peer",
        "bytes_in": 3,
        "bytes_out": 3,
        "cause": "eof",
    }
    made.allow("^{")


def test_a_moved_connection_has_one_line_with_all_its_bytes(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[{"name": "upper", "bind": "127.0.0.1:0", "access_log": True}])
    client = running.client()
    client.ask(b"abc")
    running.reload()
    client.ask(b"de")
    client.half_close()
    running.wait_log(LINE.format("eof", 5, 5))
    assert running.count_log(r"access\[") == 1


def test_a_file_is_rotated_though_privileges_are_dropped(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    needs.root()
    interpreter_for_all()
    made = make_daemon({})
    folder = made.directory / "only-root"
    folder.mkdir(mode=0o700)
    where = folder / "access.log"
    service = {"name": "upper", "bind": "127.0.0.1:0", "access_log": str(where)}
    made.write_config({"services": [service], "master": {"user": "nobody"}})
    made.start()

    def visit(data: bytes) -> None:
        client = made.client()
        assert client.ask(data) == data.upper()
        client.half_close()
        client.rest()

    def lines(path: Path) -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    visit(b"a")
    eventually(lambda: len(lines(where)) == 1)
    where.rename(folder / "access.log.1")
    made.send(signal.SIGUSR1)
    made.wait_log("access log .* reopened")
    visit(b"b")
    eventually(lambda: len(lines(where)) + len(lines(folder / "access.log.1")) == 2)
    # A worker that has not read the order yet may still write to the old file: ask until it has.
    eventually(lambda: visit(b"c") or lines(where))


def test_a_file_that_cannot_be_opened_ends_the_start(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    where = "/nonexistent/access.log"
    service = {"name": "upper", "bind": "127.0.0.1:0", "access_log": where}
    made = make_daemon({"services": [service]})
    made.launch()
    assert made.wait_exit() == 73
    made.expect(f"{where}: cannot open the log file: .*; set access_log to a plain file")
    made.allow("start failed", "exited with status 73")


RUNTIMES = """
import asyncio, socketserver

async def coroutine(reader, writer):
    writer.write((await reader.read(100)).upper())
    writer.close()

class Callbacks(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data.upper())
        self.transport.close()

class Blocking(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.request.recv(100).upper())
"""


def test_every_runtime_is_logged(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    made.write_module("runtimes", RUNTIMES)
    names = ("coroutine", "Callbacks", "Blocking")
    made.write_config(
        {
            "services": [
                {
                    "name": name,
                    "protocol": f"runtimes:{name}",
                    "bind": "127.0.0.1:0",
                    "access_log": True,
                }
                for name in names
            ]
        }
    )
    made.start()
    for name in names:
        client = made.client(made.address(name))
        assert client.ask(b"abc") == b"ABC"
        assert client.rest() == b""
        line = made.wait_log(rf"access\[\d+\]: {name}: 127\.0\.0\.1:\d+: \w+ after ")
        assert ", 3 in, 3 out, id " in line


RAISING = """
from epolld import Protocol

class Raising(Protocol):
    def data_received(self, data):
        raise ValueError("no")
"""


def test_a_flood_of_one_kind_is_cut(make_daemon: Callable[[Config], Daemon]) -> None:
    service = {"name": "raising", "protocol": "raising:Raising", "bind": "127.0.0.1:0"}
    made = make_daemon({"services": [service], "workers": {"count": 1}})
    made.write_module("raising", RAISING)
    made.start()
    for _ in range(50):
        client = made.client(made.address("raising"))
        client.sock.sendall(b"x")
        assert client.is_ended()
        client.close()
    made.expect("data_received of Raising raised ValueError", "30 more like this suppressed: ")
    made.stop()
    assert made.count_log("raising: data_received of Raising raised") == 20
    made.wait_log(r"error connection\[\d+\]: 30 more like this suppressed: .* \(ValueError\)")


def test_a_rotation_that_fails_keeps_the_old_file(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    made = make_daemon({})
    folder = made.directory / "logs"
    folder.mkdir()
    where = folder / "access.log"
    service = {"name": "upper", "bind": "127.0.0.1:0", "access_log": str(where)}
    made.write_config({"services": [service]})
    made.start()
    folder.rename(folder.with_suffix(".old"))
    made.send(signal.SIGUSR1)
    made.wait_log("access log not reopened, still using the old one: .*access.log")
    made.expect("access log not reopened")
    client = made.client()
    assert client.ask(b"abc") == b"ABC"
    client.half_close()
    old = folder.with_suffix(".old") / "access.log"
    eventually(lambda: re.search(LINE.format("eof", 3, 3), old.read_text().rstrip()))
