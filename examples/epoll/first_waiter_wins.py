"""Who gets the next connection? With EPOLLEXCLUSIVE the first in the queue that sleeps.

The queue is in the order of `register`, and nobody moves in it: when connections come one after
the other, the first worker gets them all. Who leaves the queue after each accept and comes back is
at its end.
"""

import os
import select
import socket

from workers import forked, wait_until_asleep

WORKERS, CONNECTIONS = 4, 1000


def accepted_by_each(go_to_the_end: bool) -> list[int]:
    """How many of the connections each worker got."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    winners, winner = os.pipe()

    def work(number: int) -> None:
        epoll = select.epoll()
        epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        while True:
            epoll.poll()
            connection, _ = listener.accept()
            if go_to_the_end:
                epoll.unregister(listener)
                epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            connection.close()
            os.write(winner, bytes([number]))

    counts = [0] * WORKERS
    with forked(WORKERS, work) as pids:
        for _ in range(CONNECTIONS):
            with socket.create_connection(listener.getsockname()):
                counts[os.read(winners, 1)[0]] += 1
                wait_until_asleep(*pids)
    return counts


print("first waiter wins:", accepted_by_each(go_to_the_end=False))
print("back to the end after each accept:", accepted_by_each(go_to_the_end=True))
