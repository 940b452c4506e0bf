"""Blocking handlers for the tests, as a user would write them for socketserver."""

import os
import socketserver
import time


class Upper(socketserver.StreamRequestHandler):
    """Answers each line in upper case."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class Greet(socketserver.BaseRequestHandler):
    """Has an option, and says what it knows."""

    def __init__(self, request, client_address, server, *, greeting: str) -> None:  # type: ignore[no-untyped-def]
        self.greeting = greeting
        super().__init__(request, client_address, server)

    def handle(self) -> None:
        server = self.server
        facts = (self.greeting, self.client_address, server.server_address, server.service)  # type: ignore[attr-defined]
        self.request.sendall(f"{facts}\n".encode())


class Trouble(socketserver.StreamRequestHandler):
    """Does what it is told, and it is told bad things."""

    def handle(self) -> None:
        self.wfile.write(b"%d\n" % os.getpid())
        for line in self.rfile:
            order = line.decode().strip()
            if order == "raise":
                raise ValueError("told to")
            if order == "exit":
                raise SystemExit(3)
            if order == "sleep":
                self.rest()
            if order == "drain":
                self.server.draining.wait()  # type: ignore[attr-defined]
                self.wfile.write(b"draining\n")
            self.wfile.write(line)

    def rest(self) -> None:
        """A long time without a look at the connection."""
        time.sleep(60)


class Start(socketserver.BaseRequestHandler):
    """Plain at first."""

    def handle(self) -> None:
        self.request.sendall(b"plain\n")
        context = self.server.ssl_context  # type: ignore[attr-defined]
        secret = context.wrap_socket(self.request, server_side=True)
        secret.sendall(b"secret\n")
        secret.unwrap()
