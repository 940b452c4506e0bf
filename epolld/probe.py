"""Asks the exporter one question and exits with the answer: for the probes of containers.

    python -m epolld.probe [HOST:PORT | unix:PATH] [/readyz]

Exit status 0 for a 200, else 1; the answer's text is printed. Imports what it needs and no more,
for it runs every few seconds.
"""

from __future__ import annotations

import socket
import sys

DEFAULT = ("127.0.0.1:9188", "/readyz")
TIMEOUT = 2.0  # seconds


def ask(address: str, path: str) -> tuple[bool, str]:
    """Whether the answer is 200, and its text."""
    try:
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(TIMEOUT)
            sock.connect(address[5:].replace("@", "\0", 1))
        else:
            host, _, port = address.rpartition(":")
            if not port.isdecimal():
                return False, f"{address!r} is not HOST:PORT or unix:PATH"
            sock = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT)
        with sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while more := sock.recv(65536):
                answer += more
    except (OSError, ValueError, OverflowError) as error:
        return False, f"{address}: {getattr(error, 'strerror', None) or error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ")[1:2] == [b"200"], body.decode(errors="replace").strip()


def main(arguments: list[str]) -> int:
    """Run the command."""
    address, path = (*arguments, *DEFAULT[len(arguments) :])[:2]
    well, text = ask(address, path)
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
