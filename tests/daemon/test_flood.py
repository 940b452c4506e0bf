"""A small flood: silent and slow connections, while new clients go on being answered.

The whole one, of 10,000, is benchmarks/measures/hostile.py.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable

from harness import Daemon

CROWD = 200  # of each kind
LIMIT = 2.0  # seconds


def test_new_clients_are_answered_and_the_others_go(daemon: Callable[..., Daemon]) -> None:
    limit = f"{LIMIT}s"
    service = {
        "name": "lines",
        "protocol": "guarded:Lines",
        "bind": "127.0.0.1:0",
        "first_byte_timeout": limit,
        "message_timeout": limit,
    }
    running = daemon(services=[service], workers={"count": 2})
    host, _, port = running.address().rpartition(":")
    address = host, int(port)
    crowd: dict[int, socket.socket] = {}
    ends = select.epoll()
    with contextlib.ExitStack() as stack:
        stack.callback(ends.close)
        for _ in range(2 * CROWD):
            sock = stack.enter_context(socket.create_connection(address))
            sock.setblocking(False)
            crowd[sock.fileno()] = sock
            ends.register(sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        slow = list(crowd.values())[CROWD:]
        begin = time.monotonic()
        waits = []
        while crowd:
            elapsed = time.monotonic() - begin
            assert elapsed < 4 * LIMIT, f"{len(crowd)} are still there"
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.send(b"x")
            asked = time.monotonic()
            with socket.create_connection(address, 8) as client:
                client.sendall(b"?\r\n")
                assert client.recv(100).startswith(b"('127.0.0.1'")
            waits.append(time.monotonic() - asked)
            for fd, _ in ends.poll(0.05):
                ends.unregister(fd)
                del crowd[fd]
    assert sorted(waits)[len(waits) * 9 // 10] < 0.5  # also where all tests run at once
    running.expect("sent nothing for 2s", "a message not whole after 2s")
    running.allow(r"more like this suppressed: .*\((first_byte|message)_timeout\)")
