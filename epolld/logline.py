"""What a log line looks like: a record in, one line of bytes out.

Whatever a message contains, the result is one line, of bounded length, that a peer cannot forge
and a terminal does not obey. Pure: refuses to know where lines go. A leaf.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

MAX_LINE = 8192  # bytes with the line feed; journald and syslogd cut or split longer ones
MAX_MESSAGE = 4096  # characters, so that a traceback has room beside the message
MAX_NAME = 64  # characters of a logger's name
JOIN = " | "  # between the lines of a traceback

# Control characters, line separators, and marks that turn the reading direction (which show a
# line as something that it is not); lone surrogates have no UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMATTER = logging.Formatter()  # for its formatException
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey.

    A backslash stays as it is: messages hold reprs, which doubled ones would make unreadable.
    """
    return _UNSAFE.sub(_escape_one, text)


def _escape_one(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that was not UTF-8
        code -= 0xDC00
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _message_of(record: logging.LogRecord) -> str:
    """The record's message; arguments that do not fit it are shown beside it, not raised."""
    try:
        text = record.getMessage()
    except Exception:  # user code's __str__ may raise anything
        text = f"{record.msg!s} (its arguments do not fit)"
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def _traceback_of(record: logging.LogRecord) -> str:
    """The traceback and stack of a record, several lines; "" without one."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(_FORMATTER.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _source_of(record: logging.LogRecord) -> str:
    """`master` for "epolld.master"; other names as they are."""
    return escape(record.name.removeprefix("epolld."))[:MAX_NAME]


def _bound(head: str, tail: str) -> bytes:
    """Both as one line of at most MAX_LINE bytes. Cuts the start of `tail`: a traceback's end
    says what happened."""
    first = head.encode(errors="backslashreplace")
    last = tail.encode(errors="backslashreplace")
    first = _cut(first, MAX_LINE - 1)
    room = MAX_LINE - 1 - len(first)
    if len(last) > room:
        keep = max(room - len(JOIN) - 3, 0)
        last = f"{JOIN}...".encode() + last[-keep:] if keep else b""
        last = last.decode(errors="ignore").encode()
    return first + last + b"\n"


def _cut(line: bytes, limit: int) -> bytes:
    """At most `limit` bytes of UTF-8, ending in "..." when something went."""
    if len(line) <= limit:
        return line
    return line[: limit - 3].decode(errors="ignore").encode() + b"..."


def format_plain(record: logging.LogRecord) -> bytes:
    """`info master[1234]: message`, for where something else adds the time."""
    return _compose("", record)


def format_text(record: logging.LogRecord) -> bytes:
    """`2026-11-23 11:05:23.123 info master[1234]: message`, local time."""
    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return _compose(f"{stamp}.{milliseconds:03d} ", record)


def format_console(record: logging.LogRecord) -> bytes:
    """As format_text, but with a traceback as Python prints it: for somebody who watches."""
    trace = "\n".join(escape(line) for line in _traceback_of(record).splitlines())
    plain = logging.makeLogRecord({**vars(record), "exc_info": None, "exc_text": None})
    plain.stack_info = None
    return format_text(plain) + (f"{trace}\n".encode(errors="backslashreplace") if trace else b"")


def format_journal(record: logging.LogRecord) -> bytes:
    """`<6>info master[1234]: message`: the priority is how sd-daemon(3) passes the level."""
    return _compose(f"<{priority_of(record.levelno)}>", record)


def _compose(prefix: str, record: logging.LogRecord) -> bytes:
    """The line of all formats for people; they differ in `prefix`."""
    head = (
        f"{prefix}{record.levelname.lower()} {_source_of(record)}[{record.process}]: "
        f"{escape(_message_of(record))}"
    )
    trace = _traceback_of(record)
    tail = JOIN + JOIN.join(escape(line) for line in trace.splitlines()) if trace else ""
    return _bound(head, tail)


def priority_of(level: int) -> int:
    """The level as a syslog(3) priority."""
    bounds = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for bound, priority in bounds if level >= bound), 7)


def format_json(record: logging.LogRecord) -> bytes:
    """One JSON object, in ASCII; what `extra={"epolld": {...}}` gave is under "context"."""
    import json  # only where this format is configured

    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    event: dict[str, Any] = {
        "time": f"{stamp}.{milliseconds:03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name[:MAX_NAME],
        "pid": record.process,
        "message": _message_of(record),
    }
    if record.exc_info and record.exc_info[0] is not None:
        event["error"] = f"{record.exc_info[0].__name__}: {_text_of(record.exc_info[1])}"
    if trace := _traceback_of(record):
        event["traceback"] = trace
    if context := getattr(record, "epolld", None):
        event["context"] = context
    # An escape takes up to six bytes a character, so the length is known only afterwards.
    limit = MAX_MESSAGE
    while True:
        line = json.dumps(_plain(event, limit, 3), separators=(",", ":")).encode() + b"\n"
        if len(line) <= MAX_LINE:
            return line
        if limit <= 64:
            event.pop("context", None)  # many small items
        limit = max(limit // 2, 64)


def _text_of(value: object) -> str:
    """str(value), which may be anybody's code."""
    try:
        return str(value)
    except Exception:
        return f"({type(value).__name__} that cannot be shown)"


def _plain(value: object, limit: int, depth: int) -> Any:
    """`value` as JSON can hold it: strings of `limit` characters, `depth` levels, 32 items each."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and value - value == 0:  # neither NaN nor infinite
        return float(value)
    if isinstance(value, Mapping) and depth:
        items = list(value.items())[:32]
        return {_plain(_text_of(k), 64, 0): _plain(v, limit, depth - 1) for k, v in items}
    if isinstance(value, list | tuple) and depth:
        return [_plain(item, limit, depth - 1) for item in value[:32]]
    text = _SURROGATE.sub(_escape_one, _text_of(value) if not isinstance(value, str) else value)
    # The end of a long text says most where it is a traceback, and the start elsewhere: both.
    half = limit // 2
    return text if len(text) <= limit else f"{text[: half - 3]}...{text[-half:]}"
