"""Clients that connect and reset before anybody has accepted them."""

import contextlib
import signal
import socket
import struct
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Daemon

ROUND = 1000  # fewer than services.backlog
UPPER = {"name": "upper", "bind": "127.0.0.1:0"}
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_nobody_else_notices(daemon: Callable[..., Daemon], rounds: int) -> None:
    running = daemon(services=[MARKED, UPPER])
    host, _, port = running.address("upper").rpartition(":")
    with under_load(running) as load:
        workers = running.wait_workers(2)
        for _ in range(rounds):
            for worker in workers:
                running.send(signal.SIGSTOP, worker.pid)
            with contextlib.ExitStack() as stack:
                for _ in range(ROUND):
                    sock = stack.enter_context(socket.create_connection((host, int(port)), 5))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            for worker in workers:
                running.send(signal.SIGCONT, worker.pid)
            load.wait_served(20)
            assert running.client(running.address("upper")).ask(b"a") == b"A"
        assert running.workers() == workers
