"""The upper-case server by epoll, edge-triggered: told once, so read and write until EAGAIN."""

import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
listener.setblocking(False)
connections: dict[int, socket.socket] = {}
pending: dict[int, bytes] = {}  # answers that did not fit
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN | select.EPOLLET)


def accept() -> None:
    """All that wait: of the second one nobody will tell again."""
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connections[connection.fileno()] = connection
        epoll.register(connection, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)  # for good


def read(fd: int) -> None:
    """All that is there, which takes one more call for each message: it says EAGAIN."""
    while fd in connections and fd not in pending:
        try:
            data = connections[fd].recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            write(fd, data.upper())
        else:
            close(fd)


def write(fd: int, data: bytes) -> None:
    """All of it, or until EAGAIN: only then will EPOLLOUT be told."""
    while data:
        try:
            data = data[connections[fd].send(data) :]
        except BlockingIOError:
            pending[fd] = data
            return
        except ConnectionError:
            close(fd)
            return


def close(fd: int) -> None:
    epoll.unregister(fd)
    connections.pop(fd).close()


print("ready on port", listener.getsockname()[1], flush=True)
while True:
    for fd, _events in epoll.poll():
        if fd == listener.fileno():
            accept()
            continue
        if fd in pending:
            write(fd, pending.pop(fd))
        read(fd)
