"""The configuration's shape: every section and setting, its type, default and meaning.

The only place that knows them: the loader, `--print-config`, `--schema` and the page
docs/configuration.md are all derived from these structs. Reads no file.
"""

import os
from typing import Annotated, Any, Literal

import msgspec

from epolld.address import Address
from epolld.config.guard import AccessRule, CapabilityKind, Limits, NetworkKind, Rlimits
from epolld.config.kinds import (
    Binds,
    Choice,
    Count,
    Duration,
    Flag,
    FlagOrPath,
    Listing,
    Mappings,
    Octal,
    Options,
    Path,
    Section,
    Setting,
    Several,
    Size,
    Text,
    Whole,
)
from epolld.config.tls import Tls
from epolld.networks import Network

# A service's name is part of setting paths, log lines and file names.
NAME = r"[A-Za-z][A-Za-z0-9_-]*"
CODE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
PROTOCOL = rf"{NAME}|{CODE}"
MAX_WORKERS = 1024  # more is a typing mistake
MAX_INT = 2**31 - 1  # what listen(2) and the counters of the scoreboard hold


class Master(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The process that binds, forks and watches. Takes effect at a restart, not at a reload."""

    user: Annotated[
        str | None,
        Setting(
            Text("a user's name or number"),
            "The user that the workers become. Used only when epolld is started as root; "
            "without it the workers stay who started them.",
        ),
    ] = None
    group: Annotated[
        str | None,
        Setting(
            Text("a group's name or number"), "The workers' group. Without it: the user's own."
        ),
    ] = None
    umask: Annotated[
        int,
        Setting(
            Octal(), "Permissions that files made by the daemon do not get, in octal as for chmod."
        ),
    ] = 0o027
    pidfile: Annotated[
        str | None,
        Setting(
            Path("an absolute path"),
            "The file with the master's process number. Without it: epolld.pid in the "
            "runtime directory.",
        ),
    ] = None
    runtime_directory: Annotated[
        str | None,
        Setting(
            Path("an absolute path"),
            "The directory for what exists only while the daemon runs. Without it: systemd's "
            "(RUNTIME_DIRECTORY), else epolld under XDG_RUNTIME_DIR, else /run/epolld for "
            "root, else one in the temp folder that only this user may enter.",
        ),
    ] = None
    control_group: Annotated[
        str | None,
        Setting(
            Text("a group's name or number"),
            "Its members command the daemon, too, over the control socket (epolldctl). Without it: "
            "only root and the user that the master runs as.",
        ),
    ] = None
    working_directory: Annotated[
        str | None,
        Setting(
            Path("an absolute path"),
            "The directory to change to after the start. Without it: stay (with --daemonize: /).",
        ),
    ] = None
    title: Annotated[
        str,
        Setting(
            Text("a title without control characters"),
            "What process titles begin with, as in `epolld: worker 2 gen 3`.",
        ),
    ] = "epolld"
    no_new_privs: Annotated[
        bool,
        Setting(
            Flag(),
            "No program that is executed from here on gains rights by its file's mode or "
            "capabilities, such as sudo (PR_SET_NO_NEW_PRIVS).",
        ),
    ] = False
    chroot: Annotated[
        str | None,
        Setting(
            Path("an absolute path"),
            "The directory that becomes the workers' root, after they have imported the services. "
            "Used only when epolld is started as root.",
        ),
    ] = None
    capabilities: Annotated[
        tuple[str, ...],
        Setting(
            Several(CapabilityKind()),
            "Capabilities that the workers keep, of those that epolld is started with; all others "
            "are gone for good. Workers that stay root keep all.",
        ),
    ] = ()


class Workers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The processes that serve."""

    count: Annotated[
        int | Literal["auto"],
        Setting(
            Count(1, MAX_WORKERS),
            "How many; `auto` is one for each processor core that the process may use.",
        ),
    ] = "auto"
    graceful_timeout: Annotated[
        float,
        Setting(
            Duration(),
            "How long a worker that is to leave waits for its connections to end before it "
            "closes them.",
        ),
    ] = 30.0
    boot_timeout: Annotated[
        float,
        Setting(Duration(zero=False), "How long a new worker may take to become ready."),
    ] = 10.0
    stuck_timeout: Annotated[
        float,
        Setting(
            Duration(),
            "A worker whose event loop does not turn for this long is made to log its stacks "
            "and is replaced. 0: never.",
        ),
    ] = 60.0
    max_connections: Annotated[
        int,
        Setting(
            Whole(1, MAX_INT),
            "The most connections that one worker holds; when full, it leaves new ones to others.",
        ),
    ] = 16384
    drain_spread: Annotated[
        float,
        Setting(
            Duration(),
            "The time over which connections that cannot move to another worker are told "
            "goodbye, from 1,000 on; fewer take their share of it.",
        ),
    ] = 5.0
    max_old_generations: Annotated[
        int,
        Setting(
            Whole(1, 100),
            "How many old generations may be leaving at a time; a further reload waits for one "
            "to be gone.",
        ),
    ] = 3
    rebalance: Annotated[
        bool,
        Setting(
            Flag(),
            "Move live connections from the fullest worker to the emptiest when they have become "
            "uneven, as after a worker died.",
        ),
    ] = False
    recycle_connections: Annotated[
        int,
        Setting(
            Whole(0, MAX_INT),
            "Replace a worker that has accepted about this many connections. 0: never.",
        ),
    ] = 0
    recycle_age: Annotated[
        float, Setting(Duration(), "Replace a worker that is about this old. 0: never.")
    ] = 0.0
    recycle_memory: Annotated[
        int,
        Setting(Size(), "Replace a worker that holds more memory than this (its RSS). 0: never."),
    ] = 0
    reload_on_change: Annotated[
        bool,
        Setting(
            Flag(),
            "Reload whenever a file of the user's code changes, and log the traceback of what "
            "cannot be imported: for developing. Looks at the folders of the modules that were "
            "imported, but for installed ones.",
        ),
    ] = False
    max_buffered: Annotated[
        int,
        Setting(
            Size(),
            "Bytes that may wait to be sent in one worker, to all clients together. Near it, "
            "nothing more is read from those who have most; above it, they are cut off. 0: no "
            "limit.",
        ),
    ] = 0
    max_lag: Annotated[
        float,
        Setting(
            Duration(),
            "A worker whose event loop runs so late accepts no connections until it keeps up "
            "again. 0: never.",
        ),
    ] = 0.0
    rlimits: Annotated[Rlimits, Setting(Section(Rlimits), Rlimits.__doc__ or "")] = Rlimits()


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
            "The time in which a message that has begun must be whole, for framings. 0: any.",
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


class Application(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all connections of a worker share: started and stopped with each worker."""

    type: Annotated[
        str | None,
        Setting(
            Text("package.module:Class", CODE),
            "A class of yours as `package.module:Class`, with some of the methods of "
            "`epolld.Application`: `start`, `draining` and `stop`.",
        ),
    ] = None
    options: Annotated[dict[str, Any], Setting(Options(), "Keyword arguments for it.")] = (
        msgspec.field(default_factory=dict)
    )


class Logging(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is logged, where to and how."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(Choice("debug", "info", "warning", "error"), "The least that is logged."),
    ] = "info"
    target: Annotated[
        Literal["stderr", "syslog", "file"],
        Setting(Choice("stderr", "syslog", "file"), "Where to; `file` needs `file`."),
    ] = "stderr"
    file: Annotated[
        str | None,
        Setting(Path("an absolute path"), "The log file for target `file`; USR1 opens it anew."),
    ] = None
    format: Annotated[
        Literal["text", "console", "json"],
        Setting(
            Choice("text", "console", "json"),
            "Lines for people; the same with tracebacks over several lines; or one JSON object a "
            "line.",
        ),
    ] = "text"


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Figures for Prometheus, by a process of its own; needs the extra `epolld[metrics]`."""

    bind: Annotated[
        tuple[Address, ...],
        Setting(
            Binds(Bind),
            "Where to answer /metrics, /healthz and /readyz: loopback addresses or Unix sockets, "
            "such as 127.0.0.1:9188. Without it: nowhere.",
        ),
    ] = ()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration. Immutable: a reload replaces it."""

    master: Annotated[Master, Setting(Section(Master), Master.__doc__ or "")] = Master()
    workers: Annotated[Workers, Setting(Section(Workers), Workers.__doc__ or "")] = Workers()
    services: Annotated[
        tuple[Service, ...],
        Setting(Listing(Service), "What is served: any number of services, at least one."),
    ] = ()
    logging: Annotated[Logging, Setting(Section(Logging), Logging.__doc__ or "")] = Logging()
    metrics: Annotated[Metrics, Setting(Section(Metrics), Metrics.__doc__ or "")] = Metrics()
    application: Annotated[
        Application, Setting(Section(Application), Application.__doc__ or "")
    ] = Application()


# What the exporter's listeners belong to; no service of the configuration can have this name.
METRICS = "epolld.metrics"


def listening(config: Config) -> tuple[Service, ...]:
    """All that listens: the services, and the exporter as if it were one."""
    if not config.metrics.bind:
        return config.services
    exporter = Service(name=METRICS, protocol=METRICS, bind=config.metrics.bind, backlog=128)
    return (*config.services, exporter)


def worker_count(workers: Workers) -> int:
    """How many workers `workers.count` stands for on this machine, in this process."""
    if workers.count == "auto":
        return len(os.sched_getaffinity(0))
    return workers.count
