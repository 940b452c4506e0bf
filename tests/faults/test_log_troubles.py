"""A peer that writes into the log, a log whose reader is gone, a device that is full."""

import os
from collections.abc import Callable
from pathlib import Path

from accounts import MARKED, Load, under_load
from harness import Config, Daemon
from processes import eventually

TELLS = """
import logging
from epolld import LineProtocol

class Tells(LineProtocol):
    delimiter = b"\\0"
    def line_received(self, line):
        logging.getLogger("tells").info("heard %s", line.decode("latin-1"))
        self.transport.write(b"ok")
"""
FORGED = (
    b"x\n2026-01-01 00:00:00.000 error master[1]: it is all over\r\n\x1b[31mred\x1b]0;title\x07"
)


def test_a_peer_cannot_forge_a_line(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({"services": [MARKED, {"name": "tells", "protocol": "tells:Tells"}]})
    made.write_module("tells", TELLS)
    made.start()
    with under_load(made):
        client = made.client(made.address("tells"))
        for _ in range(100):
            assert client.ask(FORGED + b"\0", 2) == b"ok"
    heard = [line for line in made.lines if "heard x" in line]
    assert heard
    assert all("it is all over" in line and "\x1b" not in line for line in heard)
    assert not made.find_log("^2026-01-01")


def test_its_reader_is_gone(make_daemon: Callable[[Config], Daemon], tmp_path: Path) -> None:
    """Standard error is a pipe that nobody reads any more: no worker dies of it."""
    made = make_daemon({"services": [MARKED], "logging": {"level": "debug"}})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    made.command = ["sh", "-c", f'exec 2>{pipe}; exec "$@"', "sh", *made.command]
    made.launch()
    with open(pipe) as reader:
        ready = next(line for line in reader if "ready: " in line)
    made.pid = int(ready.split("master[")[1].split("]")[0])
    address = ready.split("listening on ")[1].split(" (")[0]
    load = Load(address)
    load.start()
    before = made.wait_workers(2, generation=1)
    made.send(1)
    after = made.wait_workers(2, generation=2)
    assert not {worker.pid for worker in before} & {worker.pid for worker in after}
    load.wait_served(50)
    load.stop()
    load.judge()


def test_a_full_device(make_daemon: Callable[[Config], Daemon]) -> None:
    """Standard error is /dev/full: each line is lost, no client is."""
    made = make_daemon({})
    path = made.directory / "socket"
    made.write_config({"services": [{**MARKED, "bind": f"unix:{path}"}]})
    made.command = ["sh", "-c", 'exec 2>/dev/full; exec "$@"', "sh", *made.command]
    made.launch()
    eventually(path.exists, what="it listens")
    load = Load(f"unix:{path}")
    load.start()
    made.wait_workers(2, generation=1)
    made.send(1)
    made.wait_workers(2, generation=2)
    load.wait_served(50)
    load.stop()
    load.judge()
