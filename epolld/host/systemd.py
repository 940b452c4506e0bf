"""Speak with systemd: readiness, watchdog, and the sockets that it passes.

The protocols are those of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3): three
environment variables and a datagram, so no library is needed. Refuses to know what is served
on an inherited socket, and never fails a daemon because nobody listens.
"""

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from epolld.errors import BindError

FIRST_FD = 3  # SD_LISTEN_FDS_START
MAX_STATUS = 512  # characters; `systemctl status` shows one line

VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


class InheritedSocket(NamedTuple):
    """One descriptor passed by a .socket unit; `name` is its FileDescriptorName=."""

    fd: int
    name: str


def notify(*lines: str, address: str | None = None, fds: tuple[int, ...] = ()) -> bool:
    """Send `lines` (`READY=1`) to systemd as one datagram; False where nobody took it.

    `address` is a path or `@name`; None takes it from NOTIFY_SOCKET. `fds` go along, for
    FDSTORE=1. Never raises, never blocks.
    """
    address = os.environ.get("NOTIFY_SOCKET") if address is None else address
    if not address or address[0] not in "/@":
        return False
    import socket

    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            data = "\n".join(lines).encode(errors="replace")
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(map(_native_int, fds)))]
            sock.sendmsg([data], control if fds else [], 0, address)
    except (OSError, ValueError):  # ValueError: a NUL inside the path
        return False
    return True


class Notifier:
    """The master's voice towards systemd; keeps the address, so the environment may forget it."""

    def __init__(self, address: str | None) -> None:
        self._address = address or ""  # "" sends nothing

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Notifier":
        """Take the address from NOTIFY_SOCKET; silent where that is not set."""
        return cls(environ.get("NOTIFY_SOCKET"))

    def ready(self, status: str = "") -> bool:
        """Say that start-up, or the reload announced before, is done."""
        return self._send("READY=1", *_status_lines(status))

    def reloading(self) -> bool:
        """Announce a reload; `ready` ends it."""
        # systemd compares this clock reading with its own request's, so it must be of now.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str = "") -> bool:
        """Announce the end."""
        return self._send("STOPPING=1", *_status_lines(status))

    def status(self, text: str) -> bool:
        """Show `text` in `systemctl status`."""
        return self._send(*_status_lines(text))

    def watchdog(self) -> bool:
        """Say that the sender's loop still turns."""
        return self._send("WATCHDOG=1")

    def store(self, name: str, fd: int) -> bool:
        """Have systemd keep a descriptor over a restart (FileDescriptorStoreMax= allows it)."""
        return bool(self._address) and notify(
            "FDSTORE=1", f"FDNAME={name}", address=self._address, fds=(fd,)
        )

    def unstore(self, name: str) -> bool:
        """Have systemd keep it no longer."""
        return self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *lines: str) -> bool:
        return bool(self._address and lines) and notify(*lines, address=self._address)


def _native_int(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def _status_lines(text: str) -> tuple[str, ...]:
    """One STATUS= line, or none; a line break inside would start another assignment."""
    flat = " ".join(text.split())[:MAX_STATUS]
    return (f"STATUS={flat}",) if flat else ()


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two WATCHDOG=1, half of what systemd allows; None: it does not watch us."""
    microseconds = _natural(environ.get("WATCHDOG_USEC", ""))
    if not microseconds:
        return None
    if "WATCHDOG_PID" in environ and _natural(environ["WATCHDOG_PID"]) != pid:
        return None
    return microseconds / 2 / 1_000_000


def listen_fds(environ: Mapping[str, str], pid: int) -> list[InheritedSocket]:
    """The sockets passed to process `pid`, made close-on-exec; [] when there are none for it.

    Ask before daemonizing, which changes the PID. Raises BindError when the variables
    contradict themselves or a promised descriptor is not open.
    """
    if _natural(environ.get("LISTEN_PID", "")) != pid:
        return []
    count = _natural(environ.get("LISTEN_FDS", ""))
    if count is None:
        text = environ.get("LISTEN_FDS", "")
        raise BindError(f"LISTEN_FDS={text!r} is not a number; start epolld from a .socket unit")
    names = environ["LISTEN_FDNAMES"].split(":") if environ.get("LISTEN_FDNAMES") else None
    if names is None:
        names = ["unknown"] * count  # what sd_listen_fds_with_names(3) says then
    if len(names) != count:
        raise BindError(f"LISTEN_FDNAMES has {len(names)} names for LISTEN_FDS={count} sockets")
    sockets = [InheritedSocket(FIRST_FD + i, name) for i, name in enumerate(names)]
    for inherited in sockets:
        try:
            os.set_inheritable(inherited.fd, False)
        except OSError as error:
            raise BindError(
                f"descriptor {inherited.fd} ({inherited.name}) promised by LISTEN_FDS={count} "
                f"is not open: {error.strerror}; start epolld from a .socket unit"
            ) from error
    return sockets


def supervision(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a program executed in our place needs to speak with systemd."""
    return {name: environ[name] for name in VARIABLES[:3] if name in environ}


def forget(environ: MutableMapping[str, str]) -> None:
    """Remove systemd's variables, so that no child believes they are meant for it."""
    for name in VARIABLES:
        environ.pop(name, None)


def _natural(text: str) -> int | None:
    """`text` as a number from 0; None if it is not one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
