"""The configuration's shape: every section and setting, its type, default and meaning.

The only place that knows them, with its parts service.py, guard.py and tls.py: the loader,
`--print-config`, `--schema` and the page docs/configuration.md are all derived from these structs.
Reads no file.
"""

import os
from typing import Annotated, Any, Literal

import msgspec

from epolld.address import Address
from epolld.config.guard import CapabilityKind, Rlimits
from epolld.config.kinds import (
    MAX_INT,
    Binds,
    Choice,
    Count,
    Duration,
    Flag,
    Listing,
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
from epolld.config.service import CODE, Bind, Service

MAX_WORKERS = 1024  # more is a typing mistake


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
