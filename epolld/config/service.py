"""The settings of one service: what is served, where, and how its connections are treated.

A part of the schema; see schema.py.
"""

from typing import Annotated, Any, Literal

import msgspec

from epolld.address import Address
from epolld.config.guard import AccessRule, Limits, NetworkKind
from epolld.config.kinds import (
    MAX_INT,
    Binds,
    Choice,
    Duration,
    Flag,
    FlagOrPath,
    Mappings,
    Octal,
    Options,
    Section,
    Setting,
    Several,
    Text,
    Whole,
)
from epolld.config.tls import Tls
from epolld.networks import Network

# A service's name is part of setting paths, log lines and file names.
NAME = r"[A-Za-z][A-Za-z0-9_-]*"
CODE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
PROTOCOL = rf"{NAME}|{CODE}"


class Bind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address written as a mapping; decoded into `epolld.address.Address`."""

    address: Annotated[
        str,
        Setting(
            Text("an address such as 127.0.0.1:1688"),
            "`host:port`, `[v6]:port`, `*:port` (every IPv4 interface), `unix:/path`, "
            "`unix:@name` (abstract) or `fd:N` (a listening socket that the process was "
            "started with).",
        ),
    ]
    mode: Annotated[
        int | None,
        Setting(
            Octal(), "Permissions of a Unix socket, in octal. Without it: what the umask leaves."
        ),
    ] = None
    owner: Annotated[
        str | None, Setting(Text("a user's name or number"), "Owner of a Unix socket.")
    ] = None
    group: Annotated[
        str | None, Setting(Text("a group's name or number"), "Group of a Unix socket.")
    ] = None


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A protocol bound to one or several addresses."""

    name: Annotated[
        str,
        Setting(
            Text("a name of letters, digits, '_' and '-' that begins with a letter", NAME),
            "Names the service in logs and in setting paths. Each name is used once.",
        ),
    ]
    protocol: Annotated[
        str,
        Setting(
            Text("a built-in service's name or package.module:Class", PROTOCOL),
            "What to serve: a built-in service (`upper`, `echo`, `discard`, `chargen`, "
            "`daytime`, `time`, `qotd`) or code of yours as `package.module:Name`: a protocol "
            "class of epolld's or asyncio's, a coroutine function, or a socketserver handler. "
            "Without it: the name.",
        ),
    ] = ""
    runtime: Annotated[
        Literal["auto", "native", "asyncio", "coroutines", "threads"],
        Setting(
            Choice("auto", "native", "asyncio", "coroutines", "threads"),
            "How the protocol is run: callbacks on epolld's own loop (`native`), an asyncio "
            "protocol (`asyncio`), `async def handle(reader, writer)` (`coroutines`), or a "
            "socketserver handler (`threads`). `auto` sees it by the class or function; only for "
            "a function that returns an asyncio protocol it must be said.",
        ),
    ] = "auto"
    threads: Annotated[
        int,
        Setting(
            Whole(1, 1024),
            "How many connections of blocking handlers each worker serves at a time, each in a "
            "thread of its own. While all are busy, new ones are left to other workers or wait.",
        ),
    ] = 16
    options: Annotated[
        dict[str, Any], Setting(Options(), "Keyword arguments for the protocol.")
    ] = msgspec.field(default_factory=dict)
    bind: Annotated[
        tuple[Address, ...],
        Setting(
            Binds(Bind),
            "Where to listen: one address or a list; an address is text or a mapping.",
        ),
    ]
    backlog: Annotated[
        int,
        Setting(
            Whole(1, MAX_INT),
            "How many connections may wait to be accepted; the kernel caps it at "
            "net.core.somaxconn.",
        ),
    ] = 1024
    idle_timeout: Annotated[
        float,
        Setting(Duration(), "A connection silent for this long is closed. 0: never."),
    ] = 0.0
    nodelay: Annotated[
        bool, Setting(Flag(), "TCP_NODELAY: send small answers at once (TCP only).")
    ] = True
    keepalive: Annotated[
        bool, Setting(Flag(), "SO_KEEPALIVE: find out when a silent peer is gone (TCP only).")
    ] = True
    reuseport: Annotated[
        bool,
        Setting(
            Flag(),
            "SO_REUSEPORT: let other programs bind the same port. Connections that wait in a "
            "listener are lost when it closes, so leave it off without need.",
        ),
    ] = False
    access_log: Annotated[
        bool | str,
        Setting(
            FlagOrPath(),
            "Log a line for each connection when it ends: who, how long, how much, why. `true`: "
            "into the daemon's log; a path: into that file, which USR1 opens anew.",
        ),
    ] = False
    v6only: Annotated[
        bool, Setting(Flag(), "IPV6_V6ONLY: an IPv6 listener does not take IPv4 connections.")
    ] = True
    tls: Annotated[Tls | None, Setting(Section(Tls), Tls.__doc__ or "")] = None
    proxy_protocol: Annotated[
        Literal["off", "required"],
        Setting(
            Choice("off", "required"),
            "`required`: every connection comes from a proxy and begins with a header of the "
            "PROXY protocol, version 1 or 2, that names the real client. Nothing is guessed.",
        ),
    ] = "off"
    proxy_trusted: Annotated[
        tuple[Network, ...],
        Setting(
            Several(NetworkKind()),
            "The proxies whose headers are believed; whoever else connects is refused.",
        ),
    ] = ()
    proxy_timeout: Annotated[
        float, Setting(Duration(zero=False), "The time within which the header must be there.")
    ] = 5.0
    access: Annotated[
        tuple[AccessRule, ...],
        Setting(
            Mappings(AccessRule),
            "Who may connect: rules `allow: NETWORK` and `deny: NETWORK`, of which the first that "
            "fits decides. Whom none fits gets the opposite of the last one.",
        ),
    ] = ()
    first_byte_timeout: Annotated[
        float,
        Setting(Duration(), "A client that has sent nothing for this long is closed. 0: never."),
    ] = 0.0
    message_timeout: Annotated[
        float,
        Setting(
            Duration(),
            "The time in which a message that has begun must be whole: of framings, and of "
            "protocols with a method `message_under_way()`. On others it has no effect. 0: any.",
        ),
    ] = 0.0
    write_timeout: Annotated[
        float,
        Setting(
            Duration(),
            "A client that takes nothing of what waits for it for this long is closed. 0: never.",
        ),
    ] = 0.0
    max_age: Annotated[
        float,
        Setting(
            Duration(),
            "A connection is ended when it is about this old, a little earlier or later so that "
            "not all end at once. 0: never.",
        ),
    ] = 0.0
    limits: Annotated[Limits, Setting(Section(Limits), Limits.__doc__ or "")] = Limits()

    def __post_init__(self) -> None:
        """Without a protocol, the name says which."""
        if not self.protocol:
            msgspec.structs.force_setattr(self, "protocol", self.name)
