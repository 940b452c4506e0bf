"""Protocols of other people's libraries, written for asyncio, as services."""

import functools
import ssl
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session
from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol


class Mailbox:
    """Writes each mail into a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        with open(self.file, "ab") as file:
            file.write(
                b"%s TLS:%s\n" % (envelope.mail_from.encode(), str(bool(session.ssl)).encode())
            )
            file.write(envelope.content)
        return "250 OK"


class Smtp(SMTP):
    """aiosmtpd's own class; it begins TLS itself."""

    def __init__(self, *, file: str, certificate: str = "", key: str = "") -> None:
        context = None
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key)
        super().__init__(Mailbox(file), hostname="test", tls_context=context)


class Loud(WebSocketServerProtocol):
    """Answers each message in upper case."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload.upper(), isBinary)


@functools.cache
def factory() -> Any:
    """One for all connections: it wants the running loop."""
    made = WebSocketServerFactory()
    made.protocol = Loud
    return made


def websocket() -> Any:
    """The protocol of a new connection."""
    return factory()()
