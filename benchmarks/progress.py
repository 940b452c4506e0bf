"""One line on the terminal: how far the benchmarks are, what is measured, how long it will take.

How long a measure takes is known from experience; the line moves on by the clock within one. A
measure that takes much longer, as on a machine that others use, makes fewer rounds: so the whole
keeps its time.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

WIDTH = 24  # characters of the bar
PATIENCE = 1.25  # times its seconds that a measure may take before it makes fewer rounds
LEAST = 3  # rounds that are made in any case: a median of fewer is none


class Progress:
    """Of measures one after the other, `seconds` each. Silent where there is no terminal."""

    def __init__(self, seconds: Mapping[str, float], stream: TextIO = sys.stderr) -> None:
        self._seconds = dict(seconds)
        self._stream = stream
        self._done = 0.0  # seconds of the measures that are over
        self._measure = ""
        self._since = 0.0
        self._live = stream.isatty()

    def begin(self, measure: str) -> None:
        """This measure begins; what went before it is over."""
        self._done += self._seconds.get(self._measure, 0.0)
        self._measure, self._since = measure, time.monotonic()
        if not self._live:
            print(self._line("begins"), file=self._stream, flush=True)

    def show(self, what: str) -> None:
        """This is what is done now."""
        if self._live:
            print(f"\r\x1b[2K{self._line(what)}"[:200], end="", file=self._stream, flush=True)

    def clear(self) -> None:
        """Leave the line to others."""
        if self._live:
            print("\r\x1b[2K", end="", file=self._stream, flush=True)

    def late(self, now: float) -> bool:
        """Whether the measure has had all the time that it may take."""
        allowed = PATIENCE * self._seconds.get(self._measure, math.inf)
        return now - self._since > allowed

    def fraction(self, now: float) -> float:
        """How much of the whole is done, 0 to 1."""
        expected = self._seconds[self._measure]
        within = min(now - self._since, expected)  # a slow one waits for its end
        return (self._done + within) / max(sum(self._seconds.values()), 1e-9)

    def _line(self, what: str) -> str:
        now = time.monotonic()
        fraction = self.fraction(now)
        full = round(fraction * WIDTH)
        left = (1 - fraction) * sum(self._seconds.values())
        bar = "#" * full + "." * (WIDTH - full)
        clock = f"{left // 60:2.0f}:{left % 60:02.0f} left"
        return f"[{bar}] {fraction:4.0%} {clock}  {self._measure}: {what}"


current = Progress({})  # what `show` writes to; run.py puts the real one here


def show(what: str) -> None:
    """This is what is done now."""
    current.show(what)


def rounds(times: int, least: int = LEAST) -> Iterator[int]:
    """The numbers of the rounds, from 0; after `least` no more than there is time for."""
    for number in range(times):
        if number >= least and current.late(time.monotonic()):
            return
        yield number
