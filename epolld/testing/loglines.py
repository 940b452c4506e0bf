"""The log of a daemon under test: it is read as it comes, waited for, and judged at the end."""

from __future__ import annotations

import re
import threading
import time
from typing import IO

from epolld.testing.client import TIMEOUT

LINE = re.compile(r"\S+ \S+ (debug|info|warning|error|critical) (\S+)\[(\d+)\]: ")
LOUD = ("warning", "error", "critical")


class LogLines:
    """What a process writes to its standard error, in `lines`.

    A line that warns, tells an error, or is none of the log's (a traceback, say) has to be
    declared before the judgement: by `expect` if it has to come, by `allow` if it may.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False  # no line can come any more
        self._reader: threading.Thread | None = None
        self._expected: list[str] = []
        self._allowed: list[str] = []

    def read_log(self, stream: IO[bytes]) -> None:
        """Collect the lines of `stream` from now on, to its end; closes it."""
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(stream,))
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.decode(errors="backslashreplace").rstrip("\n"))
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_log(self, pattern: str, timeout: float = TIMEOUT, count: int = 1) -> str:
        """Wait for the `count`-th line that matches; returns it. Fails early if none can come."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := self._matching(pattern)) < count:
                left = deadline - time.monotonic()
                wanted = f"{pattern!r} ({count}); it said:\n  " + "\n  ".join(self.lines)
                assert not self._ended, f"it ended without {wanted}"
                assert left > 0, f"it did not say within {timeout}s: {wanted}"
                self._changed.wait(left)
            return found[count - 1]

    def find_log(self, pattern: str) -> str:
        """The first line that matches; "" if there is none."""
        return next(iter(self._matching(pattern)), "")

    def count_log(self, pattern: str) -> int:
        """How many lines match."""
        return len(self._matching(pattern))

    def _matching(self, pattern: str) -> list[str]:
        return [line for line in self.lines if re.search(pattern, line)]

    def expect(self, *patterns: str) -> None:
        """The log shall hold such warnings, errors or raw lines: each at least once."""
        self._expected += patterns

    def allow(self, *patterns: str) -> None:
        """The log may hold such."""
        self._allowed += patterns

    def judge_log(self) -> list[str]:
        """What is in the log and should not be, or the other way round."""
        known = self._expected + self._allowed
        troubles = [
            f"unexpected in the log: {line}"
            for line in self.lines
            if ((match := LINE.match(line)) is None or match[1] in LOUD)
            and not any(re.search(pattern, line) for pattern in known)
        ]
        troubles += [f"not in the log: {x}" for x in self._expected if not self._matching(x)]
        return troubles

    def close_log(self) -> None:
        """Read to the end, which comes when the last process of the daemon has ended."""
        if self._reader is not None:
            self._reader.join(TIMEOUT)
            assert not self._reader.is_alive(), "somebody still holds standard error"
