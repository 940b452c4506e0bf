"""Thousands of connections are reset while they are written to: each ends once, nothing spins."""

import socket
import struct
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Config, Daemon
from processes import cpu_seconds, eventually

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets

STORM = """
import logging, os
from epolld import Protocol

class Counts:
    made = lost = paused = 0

class Pours(Protocol):
    def connection_made(self, transport):
        Counts.made += 1
        self.transport = transport
        self.ended = self.paused = False
        self.pour()

    def pour(self):
        while not self.paused and not self.transport.is_closing():
            self.transport.write(bytes(16384))

    def pause_writing(self):
        self.paused = True
        Counts.paused += 1

    def resume_writing(self):
        self.paused = False
        Counts.paused -= 1
        self.pour()

    def connection_lost(self, exc):
        if self.ended:
            logging.getLogger("storm").error("connection_lost came twice")
        self.ended = True
        Counts.lost += 1
        Counts.paused -= self.paused

class Tells(Protocol):
    def data_received(self, data):
        self.transport.write(b"%d %d %d\\n" % (Counts.made, Counts.lost, Counts.paused))
"""


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_each_ends_once(make_daemon: Callable[[Config], Daemon], count: int) -> None:
    made = make_daemon(
        {
            "services": [
                MARKED,
                {"name": "pours", "protocol": "storm:Pours"},
                {"name": "tells", "protocol": "storm:Tells"},
            ],
            "workers": {"count": 1},
        }
    )
    made.write_module("storm", STORM)
    made.start()

    def counts() -> list[int]:
        client.send(b"?")
        return [int(field) for field in client.line().split()]

    with under_load(made, patience=20) as load:
        (worker,) = made.wait_workers(1)
        client = made.client(made.address("tells"))
        host, _, port = made.address("pours").rpartition(":")
        writing = []
        for number in range(count):
            sock = socket.socket()
            if number % 2:  # these are paused soon
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((host, int(port)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writing.append(sock)
        eventually(lambda: counts()[0] == count and counts()[2] > count / 2, 20)
        for sock in writing[::4]:
            sock.recv(65536)  # it is written to again
        for sock in writing:
            sock.close()
        eventually(lambda: counts() == [count, count, 0], 20, "each has ended")
        load.wait_served(20)
        load.stop()
        before = cpu_seconds(worker.pid)
        time.sleep(0.5)  # what it uses at rest
        assert cpu_seconds(worker.pid) - before < 0.1
        assert counts() == [count, count, 0]
        client.close()
