"""The upper-case server by the epoll loop that one writes first, and should not leave so.

One list holds the pending answers of all connections, and each socket is switched between EPOLLIN
and EPOLLOUT. It is right, and pays for each message with two changes of the interest list, a
second wake-up and a search.
"""

import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
listener.setblocking(False)
connections: dict[int, socket.socket] = {}
pending: list[tuple[int, bytes]] = []  # whose answer, and what is left of it
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)


def accept() -> None:
    """All that wait: one call has told of them together."""
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connections[connection.fileno()] = connection
        epoll.register(connection, select.EPOLLIN)


def read(fd: int) -> None:
    try:
        data = connections[fd].recv(65536)
    except ConnectionError:
        data = b""
    if data:
        pending.append((fd, data.upper()))
        epoll.modify(fd, select.EPOLLOUT)  # the answer waits for the next wake-up
    else:
        close(fd)


def write(fd: int) -> None:
    place = next(place for place, (owner, _) in enumerate(pending) if owner == fd)
    _, data = pending.pop(place)
    try:
        rest = data[connections[fd].send(data) :]
    except ConnectionError:
        close(fd)
        return
    if rest:
        pending.append((fd, rest))
    else:
        epoll.modify(fd, select.EPOLLIN)


def close(fd: int) -> None:
    epoll.unregister(fd)
    connections.pop(fd).close()


print("ready on port", listener.getsockname()[1], flush=True)
while True:
    for fd, events in epoll.poll():
        if fd == listener.fileno():
            accept()
        elif events & select.EPOLLIN:
            read(fd)
        else:
            write(fd)
