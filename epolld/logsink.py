"""Where log lines go: standard error, a file, the system's log.

A daemon must not stop for its log: each `write` is one attempt, which neither waits nor is
repeated, and raises OSError when the line was not taken whole. Refuses to know what a line
says. A leaf: imports errors and logline alone.
"""

import contextlib
import errno
import os
import select
import stat
from typing import Any, Protocol

from epolld.errors import PathError
from epolld.logline import priority_of

FILE_MODE = 0o640  # peers' addresses are in it: not for everybody
SYSLOG_PATH = "/dev/log"
SYSLOG_FACILITY = 3 << 3  # LOG_DAEMON


class Sink(Protocol):
    """A place for lines."""

    def write(self, line: bytes, level: int) -> None:
        """Write `line` (with its line feed) or raise OSError; never blocks."""

    def fileno(self) -> int:
        """The descriptor that raw dumps go to."""

    def descriptors(self) -> list[int]:
        """What must stay open for `write`, beside standard error."""

    def close(self) -> None:
        """Release what is this sink's own."""


class _Torn:
    """Remembers that a write ended in the middle of a line, to end it before the next."""

    def __init__(self) -> None:
        self._torn = False

    def prepare(self, line: bytes) -> bytes:
        return b"\n" + line if self._torn else line

    def settle(self, line: bytes, written: int) -> None:
        """Raise when only a part was taken: this line counts as lost."""
        if written:
            self._torn = written < len(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, "only a part of the line was taken")


class StderrSink:
    """Descriptor 2, whatever it is at that moment: daemonizing points it at /dev/null."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None  # device and inode that descriptor 2 was
        self._private = -1  # our own non-blocking opening of it, or -1
        self._is_socket = False
        self._torn = _Torn()

    def write(self, line: bytes, level: int) -> None:
        found = os.fstat(2)
        if (found.st_dev, found.st_ino) != self._seen:
            self._follow(found)
        data = self._torn.prepare(line)
        self._torn.settle(data, self._send(data))

    def _follow(self, found: os.stat_result) -> None:
        """Find a way to write to the new descriptor 2 without ever waiting.

        O_NONBLOCK belongs to the open file description, which we share with a shell or with our
        siblings: never set it there. A pipe or terminal is opened a second time instead; a
        socket takes MSG_DONTWAIT; a regular file does not block, and shares its offset.
        """
        self.close()
        self._seen = found.st_dev, found.st_ino
        self._is_socket = stat.S_ISSOCK(found.st_mode)
        if stat.S_ISFIFO(found.st_mode) or os.isatty(2):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with contextlib.suppress(OSError):  # no /proc, or another user's: then poll below
                self._private = os.open("/proc/self/fd/2", flags)

    def _send(self, data: bytes) -> int:
        if self._is_socket:
            import socket

            with socket.socket(fileno=os.dup(2)) as sock:
                return sock.send(data, socket.MSG_DONTWAIT)
        if self._private >= 0:
            return os.write(self._private, data)
        # Shared and perhaps blocking: ask first. A pipe that is writable takes one page.
        poller = select.poll()
        poller.register(2, select.POLLOUT)
        if not poller.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(2, data)

    def fileno(self) -> int:
        return 2

    def descriptors(self) -> list[int]:
        return [self._private] if self._private >= 0 else []

    def close(self) -> None:
        if self._private >= 0:
            os.close(self._private)
            self._private = -1


class FileSink:
    """A file that is appended to; several processes may, since each line is one write."""

    def __init__(self, fd: int, path: str | None) -> None:
        self._fd = fd
        self._path = path  # None: a descriptor that another process opened
        self._torn = _Torn()

    def write(self, line: bytes, level: int) -> None:
        data = self._torn.prepare(line)
        self._torn.settle(data, os.write(self._fd, data))

    def reopen(self) -> None:
        """Open the path again; raises PathError and keeps the old file."""
        if self._path is not None:
            self.replace(open_file(self._path))

    def replace(self, fd: int) -> None:
        """Write to the file open as `fd` from now on, and own it.

        dup2 swaps it under the same number, at once: no line is lost in a thread, and
        faulthandler, which knows the number, follows.
        """
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)

    def fileno(self) -> int:
        return self._fd

    def descriptors(self) -> list[int]:
        return [self._fd]

    def close(self) -> None:
        os.close(self._fd)


class SyslogSink:
    """The system's log, by the datagrams that syslog(3) sends.

    Not logging.handlers.SysLogHandler: that one waits while the receiver's queue is full.
    """

    def __init__(self, identity: str, path: str | None = None) -> None:
        self._path = SYSLOG_PATH if path is None else path
        self._identity = identity
        self._socket: Any = None  # of class socket.socket, imported where it is needed
        try:
            self._connect()
        except OSError as error:
            raise PathError(
                f"{self._path}: no system log: {error.strerror}; start syslogd or journald, "
                "or set logging.target to stderr or file"
            ) from error

    def _connect(self) -> None:
        import socket

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self._socket = sock

    def write(self, line: bytes, level: int) -> None:
        tag = f"<{SYSLOG_FACILITY | priority_of(level)}>{self._identity}[{os.getpid()}]: "
        datagram = tag.encode() + line.rstrip(b"\n")
        if self._socket is not None:
            try:
                self._socket.send(datagram)
                return
            except BlockingIOError:
                raise
            except OSError:  # syslogd was restarted: its socket is another one now
                self.close()
        self._connect()
        self._socket.send(datagram)

    def fileno(self) -> int:
        return 2  # a raw dump is not a datagram

    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def open_file(path: str, setting: str = "logging.file") -> int:
    """Open a log file for appending, private to user and group; raises PathError, which tells
    the name of the setting."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    remedy = f"set {setting} to a plain file in a directory that exists"
    try:
        # O_NONBLOCK: opening a FIFO that nobody reads would wait.
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, FILE_MODE)
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise PathError(f"{path}: cannot open the log file: {why}; {remedy}") from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise PathError(f"{path}: cannot open the log file: not a regular file; {remedy}")
