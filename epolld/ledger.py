"""What is counted: the layout of the numbers and names that the scoreboard holds beside its rows.

A `Sheet` is one worker's counters, by service and of its application; the totals of workers that
have ended stand in sheets of the same form, one a slot. Words are aligned and written whole by one
writer, so there are no locks; only where the master moves numbers from one sheet to another it
marks that, and a reader reads again (`Scoreboard.consistent`). A leaf.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from epolld.causes import ENDS, REFUSALS, RESTARTS

WORD = 8  # bytes
SERVICES = 48  # that have counters of their own; the last takes all that find no place
SERVICE_WORDS = 56  # for each service in a sheet
APPLICATION = 32  # counters and gauges of the application
LISTENERS = 64
NAME_BYTES = 128  # of a service's name
LISTENER_BYTES = 256  # of a listener: two words, and the text

# Memory is taken from the system by the page and only where something is written, so the size of
# a sheet costs nothing; a whole number of pages lets the system take it back at once.
SHEET = 32768

OVERFLOW = "other"  # the name of the last service


class Count(enum.IntEnum):
    """The words for one service; behind them one for each of ENDS and of REFUSALS."""

    LIVE = 0  # connections now
    ACCEPTED = 1
    BYTES_IN = 2
    BYTES_OUT = 3
    MOVED_IN = 4  # connections taken over from another worker
    MOVED_OUT = 5


FIRST_END = len(Count)
FIRST_REFUSAL = FIRST_END + len(ENDS)
USED_WORDS = FIRST_REFUSAL + len(REFUSALS)
assert USED_WORDS <= SERVICE_WORDS, "make SERVICE_WORDS larger"

END_WORD = {cause: FIRST_END + n for n, cause in enumerate(ENDS)}
REFUSAL_WORD = {cause: FIRST_REFUSAL + n for n, cause in enumerate(REFUSALS)}


class MasterWord(enum.IntEnum):
    """What the master alone writes; behind them one for each of RESTARTS."""

    SEQUENCE = 0  # odd while numbers are being moved
    STATE = 1  # MasterState
    GENERATION = 2  # in force
    STARTED = 3  # seconds since 1970
    RELOADS_DONE = 4
    RELOADS_FAILED = 5
    LAST_RELOAD = 6  # seconds since 1970; 0: none yet
    LAST_RELOAD_DONE = 7  # 1: it worked
    UPGRADES = 8
    WORKERS_WANTED = 9
    EXPORTER_RESTARTS = 10


FIRST_RESTART = len(MasterWord)
RESTART_WORD = {cause: FIRST_RESTART + n for n, cause in enumerate(RESTARTS)}
# By service: the last second, since 1970, in which all its certificates are valid; 0: it has none.
CERTIFICATE_ENDS = 64
MASTER_WORDS = CERTIFICATE_ENDS + SERVICES
assert FIRST_RESTART + len(RESTARTS) <= CERTIFICATE_ENDS


class MasterState(enum.IntEnum):
    """What the daemon as a whole is about."""

    STARTING = 0
    SERVING = 1
    SUSPENDED = 2
    STOPPING = 3


class ProcessWord(enum.IntEnum):
    """In the totals of a slot: what the system says of its processes when they have ended."""

    CPU = 0  # microseconds of processor time


class Kind(enum.IntEnum):
    """Of an application's metric."""

    NONE = 0
    COUNTER = 1
    GAUGE = 2


class Declared(NamedTuple):
    """An application's metric; `name` and `help` fit their places."""

    kind: Kind
    name: str
    help: str


METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
METRIC_NAME_BYTES = 64
METRIC_HELP_BYTES = 168
_DECLARED_BYTES = WORD + METRIC_NAME_BYTES + METRIC_HELP_BYTES

_VALUES = SERVICES * SERVICE_WORDS * WORD  # where the application's values begin
_DECLARATIONS = _VALUES + APPLICATION * WORD
_PROCESS = _DECLARATIONS + APPLICATION * _DECLARED_BYTES
_PROCESS_END = _PROCESS + len(ProcessWord) * WORD
assert _PROCESS_END <= SHEET


def write_text(place: memoryview, text: str) -> None:
    """Write `text` into its place, cut to fit, in whole characters."""
    data = text.encode(errors="replace")[: len(place)].decode(errors="ignore").encode()
    place[:] = data.ljust(len(place), b"\0")


def read_text(place: memoryview) -> str:
    """What stands there."""
    return bytes(place).rstrip(b"\0").decode(errors="replace")


class Sheet:
    """The counters of one worker, or the totals of one slot."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._counts = memory[:_VALUES].cast("q")
        self.values = memory[_VALUES:_DECLARATIONS].cast("d")  # the application's
        self.process = memory[_PROCESS:_PROCESS_END].cast("q")  # by ProcessWord

    def service(self, index: int) -> memoryview:
        """The words of one service."""
        return self._counts[index * SERVICE_WORDS : (index + 1) * SERVICE_WORDS]

    def declare(self, place: int, metric: Declared) -> None:
        """Say what the application's value at `place` is; the kind last, which makes it count."""
        entry = self._entry(place)
        write_text(entry[WORD : WORD + METRIC_NAME_BYTES], metric.name)
        write_text(entry[WORD + METRIC_NAME_BYTES :], metric.help)
        entry[0] = metric.kind

    def declared(self) -> list[Declared]:
        """The application's metrics, in the order of `values`.

        Written by a worker, hence gossip: what is no metric ends the list.
        """
        found = []
        for place in range(APPLICATION):
            entry = self._entry(place)
            if entry[0] not in (Kind.COUNTER, Kind.GAUGE):
                break
            name = read_text(entry[WORD : WORD + METRIC_NAME_BYTES])
            if not METRIC_NAME.fullmatch(name):
                break
            help = read_text(entry[WORD + METRIC_NAME_BYTES :])
            found.append(Declared(Kind(entry[0]), name, help))
        return found

    def add(self, other: Sheet, services: int) -> None:
        """Add what another sheet has counted; gauges are no sums and end with their worker."""
        for index in range(services):
            mine, theirs = self.service(index), other.service(index)
            for word in range(Count.ACCEPTED, USED_WORDS):
                if theirs[word]:
                    mine[word] += theirs[word]
        mine_declared = self.declared()
        places = {metric.name: place for place, metric in enumerate(mine_declared)}
        for place, metric in enumerate(other.declared()):
            if metric.kind is not Kind.COUNTER:
                continue
            if metric.name not in places:
                if len(places) == APPLICATION:
                    continue  # many versions of user code, each with names of its own
                places[metric.name] = len(places)
                self.declare(places[metric.name], metric)
            self.values[places[metric.name]] += other.values[place]

    def forget_service(self, index: int) -> None:
        """Zero the words of one service, whose place another takes."""
        words = self.service(index)
        for word in range(SERVICE_WORDS):
            if words[word]:
                words[word] = 0

    def _entry(self, place: int) -> memoryview:
        start = _DECLARATIONS + place * _DECLARED_BYTES
        return self._memory[start : start + _DECLARED_BYTES]
