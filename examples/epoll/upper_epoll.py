"""The upper-case server by epoll, level-triggered: the kernel keeps the list, we hear the news."""

import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
listener.setblocking(False)
connections: dict[int, socket.socket] = {}
pending: dict[int, bytes] = {}  # answers that did not fit
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
        write(fd, data.upper())
    else:
        close(fd)


def write(fd: int, data: bytes) -> None:
    """Try at once; while something is left, wait to write and do not read more."""
    try:
        sent = connections[fd].send(data)
    except BlockingIOError:
        sent = 0
    except ConnectionError:
        close(fd)
        return
    if rest := data[sent:]:
        pending[fd] = rest
        epoll.modify(fd, select.EPOLLOUT)


def close(fd: int) -> None:
    epoll.unregister(fd)
    connections.pop(fd).close()


print("ready on port", listener.getsockname()[1], flush=True)
while True:
    for fd, _events in epoll.poll():
        if fd == listener.fileno():
            accept()
        elif fd in pending:
            epoll.modify(fd, select.EPOLLIN)
            write(fd, pending.pop(fd))
        else:
            read(fd)
