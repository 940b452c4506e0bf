"""A plain client with a time limit. Knows no protocol."""

from __future__ import annotations

import socket

TIMEOUT = 8.0  # seconds, for anything that ought to happen at once, on a busy machine


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Client:
    """A connection to `address`, as the daemon's log writes it: `127.0.0.1:1688`, `unix:/path`.

    `sock` is the socket. What takes longer than `timeout` seconds raises TimeoutError.
    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        if address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(address[5:].replace("@", "\0", 1))
        else:
            host, _, port = address.rpartition(":")
            self.sock = socket.create_connection((host.strip("[]"), int(port)), timeout)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def ask(self, data: bytes, length: int | None = None) -> bytes:
        """Send, and read as many bytes back."""
        self.sock.sendall(data)
        return self.read(len(data) if length is None else length)

    def read(self, length: int) -> bytes:
        """So many bytes, fewer at the end of file."""
        data = b""
        while len(data) < length and (more := self.sock.recv(length - len(data))):
            data += more
        return data

    def line(self) -> bytes:
        """Up to a line feed, without it."""
        data = b""
        while not data.endswith(b"\n") and (more := self.sock.recv(1)):
            data += more
        return data.rstrip(b"\n")

    def rest(self) -> bytes:
        """All up to the end of file."""
        return self.read(1 << 30)

    def half_close(self) -> None:
        """Send no more."""
        self.sock.shutdown(socket.SHUT_WR)

    def is_ended(self) -> bool:
        """Whether the server has ended it, by FIN or RST, within the time limit."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Hang up."""
        self.sock.close()
