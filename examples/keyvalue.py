"""A key-value cache that speaks RESP, the protocol of Redis: redis-cli and redis-benchmark work.

The keys are in the memory of the worker, and workers share none. So it has one worker, and begins
empty after a reload, as memcached after a restart: a cache, not a database.
"""

import time
from collections.abc import Callable, Iterator

from epolld import Protocol

MAX_SIZE = 1 << 20  # bytes of one command
MAX_ARGUMENTS = 1024

values: dict[bytes, bytes] = {}
deadlines: dict[bytes, float] = {}  # of the keys that expire
HEADS = {size: b"$%d" % size for size in range(1024)}  # what stands before short arguments
OK, NIL, SYNTAX = b"+OK\r\n", b"$-1\r\n", b"-ERR syntax error\r\n"
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"


def bulk(value: bytes) -> bytes:
    """A text of any bytes, as RESP writes it."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def is_alive(key: bytes) -> bool:
    """Whether there is such a key; forgets it if its time is over."""
    if key in deadlines and deadlines[key] <= time.monotonic():
        del deadlines[key], values[key]
    return key in values


def get(key: bytes) -> bytes:
    if deadlines and not is_alive(key):
        return NIL
    value = values.get(key)
    return NIL if value is None else bulk(value)


def set_(key: bytes, value: bytes, option: bytes = b"", seconds: bytes = b"0") -> bytes:
    if option and option.upper() != b"EX":
        return SYNTAX
    values[key] = value
    deadlines.pop(key, None)
    return expire(key, seconds) and OK if option else OK


def delete(*keys: bytes) -> bytes:
    gone = [key for key in keys if is_alive(key) and values.pop(key) is not None]
    for key in gone:
        deadlines.pop(key, None)
    return b":%d\r\n" % len(gone)


def incr(key: bytes) -> bytes:
    number = int(values[key] if is_alive(key) else 0) + 1
    values[key] = b"%d" % number
    return b":%d\r\n" % number


def expire(key: bytes, seconds: bytes) -> bytes:
    deadline = time.monotonic() + int(seconds)
    if not is_alive(key):
        return b":0\r\n"
    deadlines[key] = deadline
    return b":1\r\n"


def ttl(key: bytes) -> bytes:
    if not is_alive(key):
        return b":-2\r\n"
    return b":%d\r\n" % (deadlines[key] - time.monotonic() + 1 if key in deadlines else -1)


def ping(text: bytes = b"") -> bytes:
    return bulk(text) if text else b"+PONG\r\n"


def info(*_sections: bytes) -> bytes:
    return bulk(b"# Keyspace\r\ndb0:keys=%d,expires=%d\r\n" % (len(values), len(deadlines)))


def nothing(*_arguments: bytes) -> bytes:  # what clients ask at their start
    return b"*0\r\n"


COMMANDS: dict[bytes, Callable[..., bytes]] = {
    b"GET": get, b"SET": set_, b"DEL": delete, b"INCR": incr, b"EXPIRE": expire, b"TTL": ttl,
    b"PING": ping, b"INFO": info, b"COMMAND": nothing, b"CONFIG": nothing, b"SELECT": lambda _: OK,
}  # fmt: skip


def execute(arguments: list[bytes]) -> bytes:
    """Do what one command says; returns the answer."""
    command = COMMANDS.get(arguments[0]) or COMMANDS.get(arguments[0].upper())
    if command is None:
        return b"-ERR unknown command '%b'\r\n" % arguments[0][:64]
    try:
        return command(*arguments[1:])
    except TypeError:
        return b"-ERR wrong number of arguments for '%b' command\r\n" % arguments[0]
    except ValueError:
        return NO_INTEGER


class KeyValue(Protocol):
    """One client. All whole commands of a receive are answered by one send."""

    __slots__ = ("_rest", "_wanted")

    def __init__(self) -> None:
        self._rest = bytearray()  # of a command that is not complete
        self._wanted = 0  # bytes that `_rest` needs before it is worth another look

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()
        answers: list[bytes] = []
        try:
            answers.extend(map(execute, self._commands(data)))
        except ValueError as error:
            answers.append(b"-ERR Protocol error: %b\r\n" % str(error).encode())
            self.transport.write(b"".join(answers))
            self.transport.close()
        else:
            self.transport.write(b"".join(answers))

    def _commands(self, data: bytes) -> Iterator[list[bytes]]:
        """The whole commands in `data`; keeps the rest. ValueError: it is no RESP."""
        parts = data.split(b"\r\n")
        last = len(parts) - 1  # that one has no end yet
        at = self._wanted = 0
        while at < last:
            if parts[at][:1] != b"*":  # a line of words, for people with telnet
                at += 1
                if words := parts[at - 1].split():
                    yield words
                continue
            count = int(parts[at][1:])
            if not 1 <= count <= MAX_ARGUMENTS:
                raise ValueError("invalid multibulk length")
            end = at + 2 * count + 1
            arguments = parts[at + 2 : end : 2]
            # The usual case: all is there, each part is one argument, as long as was announced.
            if end > last or parts[at + 1 : end : 2] != [*map(HEADS.get, map(len, arguments))]:
                whole = self._long_command(parts, at, count)
                if whole is None:
                    break
                arguments, end = whole
            yield arguments
            at = end
        rest = b"\r\n".join(parts[at:])
        if max(len(rest), self._wanted) > MAX_SIZE:
            raise ValueError("too big a command")
        self._rest += rest

    def _long_command(
        self, parts: list[bytes], at: int, count: int
    ) -> tuple[list[bytes], int] | None:
        """The arguments, line ends and all, and the part behind them; None: not all there."""
        arguments = []
        last = len(parts) - 1
        place = at + 1
        for _ in range(count):
            if place >= last:
                return None
            size = int(parts[place][1:])
            if parts[place][:1] != b"$" or size < 0:
                raise ValueError("invalid bulk length")
            begin = place = place + 1
            length = len(parts[place])
            while length < size and place < last:
                place += 1
                length += 2 + len(parts[place])
            if place == last and length <= size + 1:
                self._wanted = sum(map(len, parts[at:])) + 2 * (last - at) + size + 2 - length
                return None
            if length != size:
                raise ValueError("invalid bulk length")
            arguments.append(b"\r\n".join(parts[begin : place + 1]))
            place += 1
        return arguments, place

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def freeze(self) -> bytes:
        return bytes(self._rest)

    def thaw(self, state: bytes) -> None:
        self._rest += state
