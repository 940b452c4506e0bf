"""TLS for blocking handlers: their sockets, which wait in OpenSSL and not in the loop."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from epolld.net.handshake import Plain, TlsServer
from epolld.runtime.requests import Counted


class TlsRequest(Counted, ssl.SSLSocket):
    """A socket over which TLS is established; counts what is inside of it."""

    def say_goodbye(self) -> None:
        """Tell the peer that no more comes (close_notify), and wait for no answer."""
        with contextlib.suppress(OSError, ValueError):
            self.setblocking(False)
            self.unwrap()


class Securer:
    """Makes TLS of the plain sockets of a service."""

    def __init__(self, tls: TlsServer) -> None:
        self.context = tls.context
        self.context.sslsocket_class = TlsRequest
        self.at_once = tls.transport_type is not Plain  # else the handler begins it (starttls)
        self._timeout = tls.timeout

    def secure(self, request: Counted) -> Counted:
        """Shake hands; raises OSError (ssl.SSLError, TimeoutError) if it comes to nothing.

        The socket that is passed is used up.
        """
        patience = request.gettimeout()
        request.settimeout(self._timeout)
        secured: Any = self.context.wrap_socket(request, server_side=True)
        secured.settimeout(patience)
        secured.last_used = request.last_used
        result: TlsRequest = secured
        return result
