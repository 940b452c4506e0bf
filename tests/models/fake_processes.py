"""Processes that live only in a test: what a master starts, signals and reaps, without a fork.

Each has a real channel to the master. What it does, and when, is the test's choice; what the
master has told it is written down. Time stands still unless the test turns it.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from epolld import channel as words
from epolld.channel import Channel, ChannelClosed
from epolld.host.children import Child, Children, Ended
from epolld.net.loop import EventLoop

FIRST_PID = 1 << 23  # above any that the kernel gives: nobody shall find one of these in /proc


class TurnedLoop(EventLoop):
    """An event loop whose clock is turned by hand, and that hides no mistake of ours."""

    __slots__ = ("faults", "hands", "told_to_stop")

    def __init__(self) -> None:
        self.hands = 1000.0
        self.faults: list[BaseException] = []
        self.told_to_stop = False
        super().__init__(lambda: self.hands)

    def turn(self) -> None:
        """Serve what is ready and due, without waiting."""
        self.call_soon(super().stop)
        self.run()

    def stop(self) -> None:
        self.told_to_stop = True

    def _fence(self, exc: BaseException) -> None:
        self.faults.append(exc)


class Told(Channel):
    """The master's end of a channel: remembers what was said, heard or not."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel._sock)
        self.messages: list[words.AnyMessage] = []

    def send(self, message: words.AnyMessage, descriptors: tuple[int, ...] = ()) -> bool:
        self.messages.append(message)
        return super().send(message, descriptors)


class Process(Child):
    """A process that does what the test says."""

    def __init__(self, pid: int, kernel: Kernel) -> None:
        ours, self._theirs = Channel.pair()
        self.told = Told(ours)
        super().__init__(pid, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), self.told)
        self._kernel = kernel
        self.ended = False
        self.leaving = False  # has heard that it shall
        self.hung = False  # turns no loop, and hears nothing
        self.stopped = False  # no signal but KILL has an effect
        self.undying = False  # nor has that, for now: it sleeps in the kernel
        self.signals: list[int] = []
        self.on_signal: Callable[[int], object] = lambda number: None  # before it has an effect

    def __repr__(self) -> str:
        return f"<{self.pid - FIRST_PID}>"

    def send_signal(self, number: int) -> None:
        """As the kernel does."""
        self.on_signal(number)
        self.signals.append(number)
        if (number == signal.SIGKILL and not self.undying) or (
            number == signal.SIGABRT and not self.stopped
        ):
            self.end(number)

    def wake(self) -> None:
        """It comes back from its sleep in the kernel."""
        self.undying = False
        if signal.SIGKILL in self.signals:
            self.end(signal.SIGKILL)

    def end(self, status: int) -> None:
        """It dies with a wait status: a signal, or 256 times its exit code."""
        if not self.ended:
            self.ended = True
            self._theirs.close()
            os.eventfd_write(self.pidfd, 1)
            self._kernel.zombies.append(Ended(self.pid, status, 0.0))

    def say(self, message: words.AnyMessage) -> None:
        """Tell the master."""
        if not self.ended:
            self._theirs.send(message)

    def say_garbage(self) -> None:
        """Send what is no message."""
        if not self.ended:
            self._theirs._sock.send(b"{]")

    def hear(self) -> None:
        """Take what the master has said; to leave takes its time, and is the test's choice."""
        while not self.ended and not self.hung:
            try:
                received = self._theirs.receive()
            except ChannelClosed:
                return
            if received is None:
                return
            message, descriptors = received
            for fd in descriptors:
                os.close(fd)
            self.leaving |= isinstance(message, words.Drain | words.Stop)

    def was_told(self, *kinds: type[words.Message]) -> bool:
        """Whether the master has ever said one of these; heard or not."""
        return any(isinstance(message, kinds) for message in self.told.messages)

    def told_to_leave(self) -> bool:
        """By word or by force."""
        return self.was_told(words.Drain, words.Stop) or signal.SIGKILL in self.signals

    def serves(self) -> bool:
        """Whether it is to accept connections, as far as that is the master's doing."""
        return not self.ended and self.was_told(words.Serve) and not self.told_to_leave()


class Kernel(Children):
    """Starts such processes, and tells of their ends in the order in which they came."""

    def __init__(self) -> None:
        self.all: list[Process] = []  # that ever were
        self.zombies: list[Ended] = []
        self.refuse = 0  # how many times no process can be had

    def start(self, live: Callable[[Channel], NoReturn]) -> Child:
        if self.refuse:
            self.refuse -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.all.append(Process(FIRST_PID + len(self.all), self))
        return self.all[-1]

    def reap(self) -> Ended | None:
        return self.zombies.pop(0) if self.zombies else None

    def alive(self) -> list[Process]:
        """Those that have not ended."""
        return [process for process in self.all if not process.ended]
