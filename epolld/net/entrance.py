"""Between an acceptor and its service: who may come in, as whom, and how many.

    accepted → (PROXY header) → access rules → limits → Service.open
                    └ refused ──────┴─────────────┘

Only a service that has such settings has an entrance; all others are opened to directly. With
the PROXY protocol the client that the header names takes the place of the peer from here on,
whatever serves the connection: its handler, the log and all limits know no other.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

from epolld.net.access import Rule, is_allowed
from epolld.net.counting import Counting
from epolld.net.deadlines import Deadlines
from epolld.net.descriptor import borrowed, describe_peer, shutdown, unpack_peer
from epolld.net.loop import EventLoop
from epolld.net.proxyproto import MAX_V2, ProxyError, parse
from epolld.net.service import Service
from epolld.networks import Network, client_of

log = logging.getLogger("epolld.entrance")

# Headers that a worker waits for at a time; the proxies are trusted, but may be broken.
MAX_WAITING = 4096

DISCARD_SIZE = 65536  # bytes


class Entrance:
    """Lets connections in to one service, or refuses them.

    `counting` is set where there are limits, `trusted` where the PROXY protocol is spoken; the
    header has to be there within `proxy_timeout` seconds. `refusal` is sent to those above a
    limit.
    """

    def __init__(
        self,
        loop: EventLoop,
        service: Service,
        rules: Sequence[Rule] = (),
        counting: Counting | None = None,
        refusal: bytes = b"",
        trusted: Sequence[Network] | None = None,
        proxy_timeout: float = 5.0,
    ) -> None:
        self.loop = loop
        self.service = service
        self._rules = rules
        self._counting = counting
        self._refusal = refusal
        self._trusted = trusted
        self._proxy_timeout = proxy_timeout
        self._waiting: Deadlines[Greeting] = Deadlines(loop, proxy_timeout, self._time_out)

    def open(self, fd: int, peer: Any) -> None:
        """Take a connected non-blocking socket, as `Service.open`."""
        peer = unpack_peer(peer)
        if self._trusted is None:
            self.admit(fd, peer)
        elif not any(client_of(peer) in network for network in self._trusted):
            self._refuse(fd, peer, "denied", "it is not in proxy_trusted")
        elif len(self._waiting) >= MAX_WAITING:
            self._refuse(fd, peer, "proxy_header", "too many wait to send a PROXY header")
        else:
            greeting = Greeting(self, fd, peer)
            self.service.count_waiting(+1)
            self._waiting.start(greeting, self._proxy_timeout)
            greeting.on_ready(select.EPOLLIN)  # as a rule it is there already

    def admit(self, fd: int, peer: Any, facts: dict[str, Any] | None = None) -> None:
        """Now that the client is known: open the connection to the service, if it may."""
        if self._rules and not is_allowed(client_of(peer), self._rules):
            self._refuse(fd, peer, "denied", "not allowed by the access rules")
            return
        if self._counting is not None:
            cause = self._counting.come(client_of(peer))
            if cause:
                self._refuse(fd, peer, cause, f"above the limit {cause}", self._refusal)
                return
        if not self.service.open(fd, peer, facts) and self._counting is not None:
            self._counting.leave(peer)

    def end_waiting(self, greeting: Greeting) -> None:
        """A connection waits for its header no more."""
        self._waiting.end(greeting)
        self.service.count_waiting(-1)

    def refuse_header(self, fd: int, peer: Any, why: str) -> None:
        """What should be a header is none."""
        self._refuse(fd, peer, "proxy_header", why)

    def _time_out(self, greeting: Greeting) -> None:
        greeting.give_up(f"no PROXY header within {self._proxy_timeout:g}s")

    def _refuse(self, fd: int, peer: Any, cause: str, why: str, answer: bytes = b"") -> None:
        """Close a connection unserved."""
        self.service.refuse(cause)
        log.info("%s: refused %s: %s", self.service.name, describe_peer(peer), why)
        if answer:
            try:
                os.write(fd, answer)
                shutdown(fd, socket.SHUT_WR)
                # What is unread at the close would make the kernel throw the answer away.
                os.read(fd, DISCARD_SIZE)
            except OSError:  # it has hung up, or has sent nothing
                pass
        os.close(fd)


class Greeting:
    """A connection whose PROXY header has not come yet: a watcher in the loop."""

    __slots__ = ("_data", "_entrance", "_fd", "_peer", "_watching")

    def __init__(self, entrance: Entrance, fd: int, peer: Any) -> None:
        self._entrance = entrance
        self._fd = fd
        self._peer = peer
        self._data = b""  # of the header, up to now
        self._watching = False

    def on_ready(self, _events: int) -> None:
        """Read the header and not a byte more: what follows is for the service to read.

        First it is only looked at, to find its end. What is not whole yet is taken nevertheless,
        or epoll would report it again and again.
        """
        try:
            with borrowed(self._fd) as sock:
                seen = sock.recv(MAX_V2 + 1 - len(self._data), socket.MSG_PEEK)
            if not seen:
                self.give_up("it was closed before its PROXY header came")
                return
            header = parse(self._data + seen)
            size = len(seen) if header is None else header.length - len(self._data)
            self._data += os.read(self._fd, size)
        except BlockingIOError:
            self._watch()
            return
        except ProxyError as error:
            self.give_up(f"its PROXY header is wrong: {error}")
            return
        except OSError as error:
            self.give_up(f"no PROXY header: {error.strerror}")
            return
        if header is None:
            self._watch()
            return
        self._end()
        if header.source is None:
            self._entrance.admit(self._fd, self._peer)
            return
        facts = {
            "proxy_peername": self._peer,
            "proxy_sockname": header.destination,
            "proxy_tlvs": dict(reversed(header.tlvs)),  # of a type that came twice, the first
        }
        self._entrance.admit(self._fd, header.source, facts)

    def give_up(self, why: str) -> None:
        """No header comes."""
        self._end()
        self._entrance.refuse_header(self._fd, self._peer, why)

    def _watch(self) -> None:
        if not self._watching:
            try:
                self._entrance.loop.add(self._fd, select.EPOLLIN, self)
            except OSError as error:  # ENOSPC, ENOMEM
                self.give_up(f"cannot wait for its PROXY header: {error.strerror}")
                return
            self._watching = True

    def _end(self) -> None:
        if self._watching:
            self._entrance.loop.unregister(self._fd)
            self._watching = False
        self._entrance.end_waiting(self)
