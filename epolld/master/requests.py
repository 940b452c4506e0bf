"""What may be asked over the control socket: one JSON object a line. docs/control.md is its page.

Pure: bytes in, a request or a complaint out. Refuses to know what a request does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

PROTOCOL = 1  # goes up when a client of before would misunderstand

Name = Annotated[str, msgspec.Meta(max_length=200)]
# A connection's number as text: it may have more than the 53 bits of a JavaScript number.
Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}$")]


class Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="command"
):
    """Base of all requests; `id` comes back with each line of the answer."""

    id: Name | int | None = None


class Status(Request, frozen=True, tag="status"):
    """How it stands as a whole."""


class Workers(Request, frozen=True, tag="workers"):
    """Every worker process."""


class Services(Request, frozen=True, tag="services"):
    """What is served, and where."""


class Selection(Request, frozen=True):
    """Which connections; what is left out does not matter."""

    ids: Annotated[list[Id], msgspec.Meta(max_length=1000)] = []
    service: Name = ""
    peers: Annotated[list[Name], msgspec.Meta(max_length=100)] = []  # addresses or networks
    worker: Annotated[int, msgspec.Meta(ge=0)] | None = None  # slot
    idle: Annotated[float, msgspec.Meta(ge=0)] = 0  # seconds, at least


class Connections(Selection, frozen=True, tag="connections"):
    """The connections of all workers, in parts."""


class Kill(Selection, frozen=True, tag="kill"):
    """End connections at once. Without any condition it is refused, unless `all`."""

    all: bool = False


class Reload(Request, frozen=True, tag="reload"):
    """Read the configuration and user code anew; answers when it is done or has failed."""


class Upgrade(Request, frozen=True, tag="upgrade"):
    """Execute the program anew, in place; answers when the reload after it is over."""


class Stop(Request, frozen=True, tag="stop"):
    """Stop; the end of the connection tells the end of the daemon."""

    fast: bool = False


class Suspend(Request, frozen=True, tag="suspend"):
    """Retire all workers; clients wait in the queues."""


class Resume(Request, frozen=True, tag="resume"):
    """Serve again after `suspend`."""


class Scale(Request, frozen=True, tag="scale"):
    """Want so many workers; kept over reloads."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)]


class LogLevel(Request, frozen=True, tag="log-level"):
    """Log from this level on, in all processes, until the next reload."""

    level: Literal["debug", "info", "warning", "error"]


class ReopenLogs(Request, frozen=True, tag="reopen-logs"):
    """Open the log file anew, after it was rotated."""


class Dump(Request, frozen=True, tag="dump"):
    """The stacks of every worker."""


class ShowConfig(Request, frozen=True, tag="config"):
    """The configuration in force, its secrets hidden."""


class Watch(Request, frozen=True, tag="watch"):
    """Status and workers, again and again until the client goes."""

    interval: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 1.0  # seconds


AnyRequest = (
    Status
    | Workers
    | Services
    | Connections
    | Kill
    | Reload
    | Upgrade
    | Stop
    | Suspend
    | Resume
    | Scale
    | LogLevel
    | ReopenLogs
    | Dump
    | ShowConfig
    | Watch
)

COMMANDS: dict[str, Any] = {each.__struct_config__.tag: each for each in AnyRequest.__args__}

_decode = msgspec.json.Decoder(AnyRequest).decode
encode = msgspec.json.Encoder().encode


def parse(line: bytes) -> AnyRequest:
    """The request on a line; raises ValueError that says what is wrong with it."""
    try:
        return _decode(line)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(_in_words(error)) from None


def _in_words(error: Exception) -> str:
    """What is wrong, for people."""
    text = str(error) or type(error).__name__
    if isinstance(error, msgspec.ValidationError) and "$.command" in text:
        return f"{text}; commands are {', '.join(sorted(COMMANDS))}"
    return text
