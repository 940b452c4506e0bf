"""The upper-case server by select(): at each call all sets go to the kernel and come back."""

import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
listener.setblocking(False)
readers = {listener}  # all that we wait to read from
pending: dict[socket.socket, bytes] = {}  # answers that did not fit: these we wait to write to


def accept() -> None:
    """All that wait: one call has told of them together."""
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        readers.add(connection)


def read(connection: socket.socket) -> None:
    try:
        data = connection.recv(65536)
    except ConnectionError:
        data = b""
    if data:
        write(connection, data.upper())
    else:
        close(connection)


def write(connection: socket.socket, data: bytes) -> None:
    """Try at once; while something is left, wait to write and do not read more."""
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    except ConnectionError:
        close(connection)
        return
    if rest := data[sent:]:
        pending[connection] = rest
        readers.discard(connection)
    else:
        readers.add(connection)


def close(connection: socket.socket) -> None:
    readers.discard(connection)
    connection.close()


print("ready on port", listener.getsockname()[1], flush=True)
while True:
    readable, writable, _ = select.select(readers, pending, [])
    for connection in writable:
        write(connection, pending.pop(connection))
    for connection in readable:
        if connection is listener:
            accept()
        else:
            read(connection)
