"""Signals as events: a handler records the number and wakes the loop, and nothing else.

The loop watches `SignalQueue.fileno()` and asks `take()` what came. Refuses to know what a
signal means: that is the main loop's table.

Of the two ways that the documentation of signal.set_wakeup_fd() gives, this is the second:
the descriptor only wakes, its bytes are ignored, so a full pipe loses nothing. Python runs a
handler in the main thread, between two instructions, after the byte was written: by the time
a read of the byte has returned, the handler has run.
"""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType

# Each of these counts: a second TERM stops at once, two TTIN are two more workers.
COUNTED = frozenset({signal.SIGTERM, signal.SIGTTIN, signal.SIGTTOU})

_DRAIN_BYTES = 4096


class SignalQueue:
    """The signals that came and were not yet taken. One a process: the wake-up descriptor is."""

    def __init__(self) -> None:
        self._came: deque[int] = deque()
        self._previous: dict[int, object] = {}  # signal → disposition before open()
        self._previous_wakeup = -1
        self._read_fd = -1
        self._write_fd = -1

    def open(self, signals: Iterable[int]) -> None:
        """Record `signals` from now on. Main thread only; `close` undoes it."""
        if self._read_fd >= 0:
            raise RuntimeError("this signal queue is open already")
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The wake-up first: no signal may be recorded without waking.
        self._previous_wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in signals:
            self._previous[number] = signal.signal(number, self._record)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def fileno(self) -> int:
        """What the loop watches for reading; -1 when closed."""
        return self._read_fd

    def take(self) -> list[int]:
        """What came, in order; those outside COUNTED only once each. Never blocks."""
        # Drain first: a signal after this leaves its byte, so the loop wakes again.
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._read_fd, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        taken: list[int] = []
        while self._came:
            number = self._came.popleft()
            if number in COUNTED or number not in taken:
                taken.append(number)
        return taken

    def close(self) -> None:
        """Restore what was before `open`; what was not taken is dropped."""
        if self._read_fd < 0:
            return
        for number, disposition in self._previous.items():
            # None: it was not installed from Python, and cannot be given back.
            signal.signal(number, disposition if disposition is not None else signal.SIG_DFL)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_wakeup)
        self._shut()

    def reset_for_child(self) -> None:
        """In a forked child: default dispositions, no wake-up, nothing of the parent's pipe.

        Only what `open` installed is touched: SIGPIPE and SIGXFSZ stay ignored, as Python
        sets them, so that a write gives EPIPE or EFBIG instead of killing the process.
        """
        if self._read_fd < 0:
            return
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL)
        # This before closing: a signal must not write to a number that is another file's by then.
        signal.set_wakeup_fd(-1)
        self._shut()

    def _shut(self) -> None:
        """Close both ends and forget."""
        os.close(self._read_fd)
        os.close(self._write_fd)
        self._read_fd = self._write_fd = -1
        self._previous.clear()
        self._came.clear()


@contextlib.contextmanager
def blocked(signals: Iterable[int]) -> Iterator[None]:
    """Hold `signals` back meanwhile; they arrive afterwards.

    For around a fork: in the child call `reset_for_child` before leaving the block, and no
    signal for it runs a handler of the parent's. What pends for the parent is not inherited
    (fork(2)). Both sides leave with the mask from before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def sent_by_terminal() -> bool:
    """Whether a terminal may have sent a signal: this is its foreground process group.

    A terminal sends WINCH to that group at each change of size; a daemon has no terminal.
    """
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # ENXIO: no controlling terminal
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)
