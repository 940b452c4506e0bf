"""upper on gevent: a greenlet a connection, as the documentation of StreamServer shows it."""

import sys
from socket import socket

from gevent.server import StreamServer


def handle(connection: socket, address: object) -> None:
    while data := connection.recv(65536):
        connection.sendall(data.upper())
    connection.close()


if __name__ == "__main__":
    server = StreamServer(("127.0.0.1", int(sys.argv[1])), handle, backlog=1024)
    server.start()
    print("ready", flush=True)
    server.serve_forever()
