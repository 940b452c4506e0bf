"""Logging: set up once, changed at a reload, reopened at USR1, handed to the workers.

Sets up the root logger, so that the loggers of user code show up beside `epolld.*`. How a line
looks is logline's, where it goes is logsink's; here is what joins them to `logging`: one handler
that stays, whose parts are swapped, so that no line is lost or doubled at a reload. Refuses to
know who logs what. A leaf.
"""

import contextlib
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from epolld.errors import PathError
from epolld.floods import Floods, Kind
from epolld.logline import (
    format_console,
    format_journal,
    format_json,
    format_plain,
    format_text,
)
from epolld.logsink import FileSink, Sink, StderrSink, SyslogSink, open_file

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

FORMATS = {"text": format_text, "console": format_console, "json": format_json}

_logger = logging.getLogger("epolld.log")

# The loggers of what peers can cause at will. Not the master's: each of its lines is needed once.
FLOODED = (
    "epolld.connection",
    "epolld.acceptor",
    "epolld.handoff",
    "epolld.entrance",
    "epolld.asyncio",
    "epolld.exporter",
)


class LineHandler(logging.Handler):
    """Formats and writes; counts what could not be written, and says so when it can again."""

    def __init__(self, to_line: Callable[[logging.LogRecord], bytes], sink: Sink) -> None:
        super().__init__()
        self._to_line = to_line
        self.sink = sink
        self.lost = 0  # lines since the last one that was written
        self._reason = ""  # of the last loss
        self.floods = Floods()

    def switch(self, to_line: Callable[[logging.LogRecord], bytes], sink: Sink) -> None:
        """Change format and place between two lines, and close the place before."""
        self.acquire()
        try:
            before, self.sink, self._to_line = self.sink, sink, to_line
        finally:
            self.release()
        if before is not sink:
            before.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event; `logging` holds our lock. Never raises, never waits."""
        if record.levelno > logging.DEBUG and record.name.startswith(FLOODED):
            raised = record.exc_info[0] if record.exc_info else None
            kind = Kind(record.name, record.levelno, str(record.msg), raised)
            now = time.monotonic()
            if self.floods.held:
                self.handle_floods(now)
            if not self.floods.allow(kind, now):
                return
        self._emit(record)

    def handle_floods(self, now: float) -> None:
        """Say how many lines were left out, of what is over."""
        for kind, count in self.floods.take(now):
            why = f" ({kind.raised.__name__})" if kind.raised else ""
            message = f"{count} more like this suppressed: {kind.text[:200]}{why}"
            self._emit(logging.LogRecord(kind.name, kind.level, __file__, 0, message, None, None))

    def _emit(self, record: logging.LogRecord) -> None:
        try:
            if self.lost:
                notice = f"{self.lost} log lines were lost: {self._reason}"
                self._write(
                    _logger.makeRecord(_logger.name, logging.WARNING, __file__, 0, notice, (), None)
                )
                self.lost = 0
            self._write(record)
        except OSError as error:
            self.lost += 1
            self._reason = error.strerror or str(error)
        except Exception as error:  # an event that defeats the formatter is still only an event
            self.lost += 1
            self._reason = f"{type(error).__name__} while formatting"

    def _write(self, record: logging.LogRecord) -> None:
        self.sink.write(self._to_line(record), record.levelno)


def file_handler(path: str, format: str, setting: str) -> LineHandler:
    """For a file beside the daemon's own log; `setting` names it. Raises PathError."""
    to_line = format_json if format == "json" else format_text
    return LineHandler(to_line, FileSink(open_file(path, setting), path))


def replace(handler: LineHandler, fd: int) -> None:
    """Have what `file_handler` made write to the file open as `fd`, and own it."""
    if isinstance(handler.sink, FileSink):
        handler.sink.replace(fd)


# The process has one standard error and one root logger, so it has one handler.
_handler = LineHandler(format_text, StderrSink())


def configure(
    level: str, target: str, format: str, file: str | None, identity: str = "epolld"
) -> None:
    """Log from `level` on, to `target` (stderr, syslog, file), as `format` (text, console,
    json).

    `file` is the path for the target file, `identity` the name in the system's log. May be
    called again. Raises PathError, and changes nothing, when the target cannot be opened;
    ValueError for a word that is none of these.
    """
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(f"logging: level {level!r}, format {format!r}: not known")
    to_line = FORMATS[format]
    if target == "stderr":
        sink: Sink = StderrSink()
        if to_line is format_text and _stderr_is_journal():
            to_line = format_journal
    elif target == "syslog":
        sink = SyslogSink(identity)
        if to_line is format_text:
            to_line = format_plain
    elif target == "file" and file:
        sink = FileSink(open_file(file), file)
    else:
        raise ValueError(f"logging: target {target!r} with file {file!r}: not known")
    _handler.switch(to_line, sink)
    root = logging.getLogger()
    if _handler not in root.handlers:
        root.addHandler(_handler)
    root.setLevel(LEVELS[level])
    logging.raiseExceptions = False  # else `logging` prints its own troubles to standard error
    logging.captureWarnings(True)  # they would be several lines, and past a log file


def set_level(level: str) -> None:
    """Log from `level` on, whatever was configured; ValueError for a word that is no level."""
    if level not in LEVELS:
        raise ValueError(f"logging: level {level!r}: not known")
    logging.getLogger().setLevel(LEVELS[level])


def level() -> str:
    """The level in force; the number, where it is none of ours."""
    number = logging.getLogger().level
    return next((name for name, value in LEVELS.items() if value == number), str(number))


def reopen() -> int | None:
    """Open the log file by its path again, after it was rotated; its descriptor, to hand on.

    None when there is no file to hand on: another target, or it cannot be opened, which is
    logged, and the old file stays in use.
    """
    sink = _handler.sink
    if not isinstance(sink, FileSink):
        return None
    try:
        sink.reopen()
    except PathError as error:
        _logger.error("log file not reopened, still using the old one: %s", error)
        return None
    return sink.fileno()


def adopt(fd: int) -> None:
    """Write to the file open as `fd` (received from the master) from now on, and own `fd`."""
    sink = _handler.sink
    if isinstance(sink, FileSink):
        sink.replace(fd)
    else:
        os.set_inheritable(fd, False)
        to_line = format_json if _handler._to_line is format_json else format_text
        _handler.switch(to_line, FileSink(fd, None))


def output_fd() -> int:
    """Where raw dumps (faulthandler's) go: the log file, else standard error. `configure` may
    change it; `reopen` and `adopt` keep a file's number."""
    return _handler.sink.fileno()


def descriptors() -> list[int]:
    """What must stay open for logging, beside standard error: for whoever closes the rest."""
    return _handler.sink.descriptors()


def _stderr_is_journal() -> bool:
    """Whether descriptor 2 goes to journald: JOURNAL_STREAM names it (systemd.exec(5))."""
    with contextlib.suppress(OSError):
        found = os.fstat(2)
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def tell_suppressed(last: bool = False) -> None:
    """Say how many lines were left out, if their time is over or this is the `last` word; to be
    called now and then."""
    if _handler.floods.held:
        _handler.acquire()
        try:
            _handler.handle_floods(math.inf if last else time.monotonic())
        finally:
            _handler.release()


class Repeats:
    """Lets one event of a kind through every `seconds`, and counts the others. Pure.

    Holds at most MAX_KEYS kinds; beyond that the one let through longest ago is forgotten.
    """

    MAX_KEYS = 1024

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def allow(self, key: Hashable, now: float) -> tuple[bool, int]:
        """Whether to log `key` at `now` (seconds), and how many were suppressed before it."""
        last = self._seen.get(key)
        if last is not None and now - last[0] < self._seconds:
            self._seen[key] = last[0], last[1] + 1
            return False, last[1] + 1
        self._seen[key] = now, 0
        self._seen.move_to_end(key)
        if len(self._seen) > self.MAX_KEYS:
            self._seen.popitem(last=False)
        return True, last[1] if last else 0
