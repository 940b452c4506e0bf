"""The exporter's keeper: one exporter process while `metrics.bind` is set, a new one when it dies.

A reload, whatever it changed, starts a new exporter on the same sockets; the old one leaves once
the new one answers, so no scrape is refused. After an upgrade in place the old one leaves by itself
(its channel is closed by the execve), and the sockets hold who comes meanwhile.
"""

from __future__ import annotations

import logging
import select
import signal
from collections.abc import Callable
from typing import NoReturn

from epolld import channel as words
from epolld.channel import Channel
from epolld.config import METRICS
from epolld.host.children import Child
from epolld.host.generation import Assignment, Generation, WorkerMain
from epolld.master.backoff import Backoff
from epolld.master.hearing import hear
from epolld.master.pool import Pool, describe_exit
from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.master")

KILL_AFTER_STOP = 5.0  # seconds from the order to leave


class Process:
    """One exporter process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.channel = child.channel
        self.ready_at: float | None = None
        self.told_to_leave = False
        self.failure = ""  # why it says that it cannot boot

    def __str__(self) -> str:
        return f"exporter (pid {self.child.pid})"


class Exporter:
    """All exporter processes: the one that answers, its successor, those that leave."""

    def __init__(
        self,
        loop: EventLoop,
        pool: Pool,
        main: WorkerMain,
        on_restart: Callable[[], object],
        on_gone: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._main = main
        self._on_restart = on_restart
        self._on_gone = on_gone
        self._processes: list[Process] = []  # the newest last
        self._generation: Generation | None = None  # what it shall show; None: none is wanted
        self._backoff = Backoff()
        self._round = 0  # of starting; a delayed start of an older one is late news

    def __len__(self) -> int:
        return len(self._processes)

    def put_in_force(self, generation: Generation) -> None:
        """Have an exporter for this generation, if it wants one."""
        wanted = any(each.service.name == METRICS for each in generation.listeners)
        self._generation = generation if wanted else None
        self._backoff = Backoff()
        if wanted:
            self._start()
        else:
            self.stop()

    def stop(self) -> None:
        """Have all leave, and start none any more."""
        self._generation = None
        self._round += 1
        for process in self._processes:
            self._dismiss(process)

    def hand_log(self, fd: int) -> None:
        """Have it log to another descriptor."""
        for process in self._processes:
            process.channel.send(words.ReopenLog(), (fd,))

    def close_in_child(self) -> None:
        """In a forked child: close what is the master's."""
        for process in self._processes:
            process.child.close()

    def _start(self) -> None:
        assert self._generation is not None
        self._round += 1
        try:
            self._processes.append(self._spawn(self._generation))
        except OSError as error:
            log.error("cannot start the exporter: %s", error)
            self._start_later(None)

    def _start_later(self, served: float | None) -> None:
        delay = self._backoff.on_death(served)
        this_round = self._round

        def due() -> None:
            if this_round == self._round and self._generation is not None:
                self._start()

        self._loop.call_later(delay, due)
        if delay:
            log.warning("exporter: next try in %gs", delay)

    def _spawn(self, generation: Generation) -> Process:
        def live(channel: Channel) -> NoReturn:
            assignment = Assignment(-1, -1, generation, channel, self._pool.scoreboard)
            self._pool.live_as_child(assignment, self._main, "exporter")

        child = self._pool.children.start(live)
        process = Process(child)
        self._pool.expect(child.pid, lambda status: self._bury(process, status))
        self._loop.register(child.pidfd, select.EPOLLIN, lambda _events: self._pool.reap())
        self._loop.register(
            child.channel.fileno(), select.EPOLLIN, lambda _events: self._listen(process)
        )
        return process

    def _listen(self, process: Process) -> None:
        for message in hear(self._loop, process.channel, process):
            if isinstance(message, words.Ready) and process.ready_at is None:
                process.ready_at = self._loop.now
                log.debug("%s is ready", process)
                for older in self._processes[: self._processes.index(process)]:
                    self._dismiss(older)
            elif isinstance(message, words.Failed):
                process.failure = message.reason

    def _dismiss(self, process: Process) -> None:
        """Have it leave: gently if it hears, else by force."""
        if process.told_to_leave:
            return
        process.told_to_leave = True
        if process.ready_at is None or not process.channel.send(words.Stop()):
            self._kill(process)
        else:
            self._loop.call_later(KILL_AFTER_STOP, lambda: self._kill(process))

    def _kill(self, process: Process) -> None:
        if process in self._processes:
            process.child.send_signal(signal.SIGKILL)

    def _bury(self, process: Process, status: int) -> None:
        """It has ended: as it was told to, or it is to be replaced."""
        self._listen(process)
        newest = process is self._processes[-1]
        self._processes.remove(process)
        self._loop.unregister(process.child.pidfd)
        self._loop.unregister(process.channel.fileno())
        process.child.close()
        if not process.told_to_leave:
            reason = f": {process.failure}" if process.failure else ""
            log.warning("%s %s%s", process, describe_exit(status), reason)
            self._on_restart()
            if newest and self._generation is not None:
                ready = process.ready_at
                self._start_later(None if ready is None else self._loop.now - ready)
        self._on_gone()
