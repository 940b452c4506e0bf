"""The thundering herd: eight workers wait for one listener, and one connection comes."""

import os
import select
import socket

from workers import forked, wait_until_asleep

WORKERS = 8


def woken_by_one_connection(flags: int) -> int:
    """How many of the workers wake up."""
    listener = socket.create_server(("127.0.0.1", 0))
    wakes, woken = os.pipe()

    def work(number: int) -> None:
        epoll = select.epoll()  # each has its own, as each worker of epolld has
        epoll.register(listener, select.EPOLLIN | flags)
        epoll.poll()
        os.write(woken, b"!")
        os.read(leave, 1)  # nobody accepts before all have been looked at

    leave, _hold = os.pipe()
    with forked(WORKERS, work) as pids, socket.create_connection(listener.getsockname()):
        first = os.read(wakes, 1)
        wait_until_asleep(*pids)
        return len(
            first + (os.read(wakes, WORKERS) if select.select([wakes], [], [], 0)[0] else b"")
        )


print("EPOLLIN:", woken_by_one_connection(0), "workers woken for one connection")
print("EPOLLIN | EPOLLEXCLUSIVE:", woken_by_one_connection(select.EPOLLEXCLUSIVE))
