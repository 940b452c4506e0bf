"""The upper-case server by poll(): no limit of 1024, but the whole list is scanned at each call."""

import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
listener.setblocking(False)
connections: dict[int, socket.socket] = {}
pending: dict[int, bytes] = {}  # answers that did not fit
poll = select.poll()  # keeps the list in the process; each call hands the kernel all of it
poll.register(listener, select.POLLIN)


def accept() -> None:
    """All that wait: one call has told of them together."""
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connections[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)


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
        poll.modify(fd, select.POLLOUT)


def close(fd: int) -> None:
    poll.unregister(fd)
    connections.pop(fd).close()


print("ready on port", listener.getsockname()[1], flush=True)
while True:
    for fd, _events in poll.poll():
        if fd == listener.fileno():
            accept()
        elif fd in pending:
            poll.modify(fd, select.POLLIN)
            write(fd, pending.pop(fd))
        else:
            read(fd)
