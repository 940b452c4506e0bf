"""Child processes: forked, each with a channel, signalled, reaped. Knows nothing of what they do.

All that the master does to a process goes through here; a test may put a fake in its place.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from epolld.channel import Channel
from epolld.host.signals import blocked


class Child:
    """A child process, and our end of the channel to it."""

    def __init__(self, pid: int, pidfd: int, channel: Channel) -> None:
        self.pid = pid
        self.pidfd = pidfd  # readable once it has ended
        self.channel = channel

    def send_signal(self, number: int) -> None:
        """Signal this very process, never another one that got its number."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Give back the descriptors; the process itself is left alone."""
        os.close(self.pidfd)
        self.channel.close()


class Ended(NamedTuple):
    """A child that was reaped."""

    pid: int
    status: int  # as of wait(2)
    cpu: float  # seconds of processor time, of its whole life


class Children:
    """The children of this process."""

    def start(self, live: Callable[[Channel], NoReturn]) -> Child:
        """Fork a child that lives `live(its end of the channel)`. Raises OSError (EAGAIN).

        All signals are blocked in the child until it has handlers of its own.
        """
        ours, theirs = Channel.pair()
        gc.freeze()  # what the child inherits, its collector shall not touch: it would copy pages
        try:
            with blocked(signal.valid_signals()):
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    live(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            gc.unfreeze()
            theirs.close()
        try:
            return Child(pid, os.pidfd_open(pid), ours)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # ours, and not reaped yet: no other can have the number
            ours.close()
            raise

    def reap(self) -> Ended | None:
        """Collect a child that has ended; None if there is none now."""
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        return Ended(pid, status, usage.ru_utime + usage.ru_stime) if pid else None
