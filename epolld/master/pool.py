"""The workers as the master sees them: forked, listened to, told to leave, reaped.

Mechanism only: which workers there ought to be is decided in master.py and reload.py, which
learn of everything through `Events`. What workers say is gossip: it moves a worker along its
table of states and does nothing else.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NoReturn, Protocol

from epolld import channel as words
from epolld.channel import Channel
from epolld.clientcounts import ClientCounts
from epolld.errors import ExitCode
from epolld.host import procstat
from epolld.host.children import Child, Children
from epolld.host.generation import Assignment, Generation, WorkerMain
from epolld.host.signals import SignalQueue
from epolld.master import recycle
from epolld.master.hearing import hear
from epolld.master.watchdog import Silence
from epolld.net.loop import EventLoop
from epolld.net.timers import Timer
from epolld.scoreboard import Column, Scoreboard

log = logging.getLogger("epolld.master")

# What a worker gets beyond its own time limit before it is killed, in seconds.
KILL_AFTER_DRAIN = 5.0
KILL_AFTER_STOP = 3.0
KILL_AFTER_ABORT = 2.0  # to write its stacks


class State(enum.Enum):
    """A worker process as the master sees it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    KILLED = "killed"
    GONE = "gone"


# All moves there are; a message or a deadline that would make another one is late news.
MOVES = {
    State.STARTING: {State.READY, State.DRAINING, State.KILLED, State.GONE},
    State.READY: {State.DRAINING, State.KILLED, State.GONE},
    State.DRAINING: {State.KILLED, State.GONE},
    State.KILLED: {State.GONE},
    State.GONE: set[State](),
}


class WorkerHandle:
    """One worker process."""

    def __init__(
        self,
        slot: int,
        row: int,
        child: Child,
        generation: Generation,
        now: float,
    ) -> None:
        self.slot = slot
        self.row = row
        self.child = child
        self.pid = child.pid
        self.channel = child.channel
        self.generation = generation
        self.state = State.STARTING
        self.silence = Silence(now)
        self.born = now
        self.jitter = recycle.jitter(os.urandom(1)[0])
        self.ready_at: float | None = None
        self.failure: words.Failed | None = None  # why it says that it cannot boot
        self.aborted = False  # by the watchdog; once is enough
        self.told_to_leave = False
        self.dismissed = False  # ended before it was of any use to anybody
        self.killed_for = ""  # why we did it
        self.deadline: Timer | None = None  # when it is killed, if it has not done what it shall

    def __str__(self) -> str:
        return f"worker {self.slot} (pid {self.pid}, generation {self.generation.number})"

    def enter(self, state: State) -> bool:
        """Move to `state` if the table allows it; False if not."""
        if state not in MOVES[self.state]:
            return False
        self.state = state
        return True


class Events(Protocol):
    """What the pool tells."""

    def on_ready(self, worker: WorkerHandle) -> None:
        """It has booted and waits for `serve`."""

    def on_answer(self, worker: WorkerHandle, answer: words.AnyAnswer) -> None:
        """It answers a question."""

    def on_gone(self, worker: WorkerHandle, before: State, how: str) -> None:
        """The process has ended; `before` says in which state, `how` in words."""


class Pool:
    """All worker processes there are, of every generation."""

    def __init__(
        self,
        loop: EventLoop,
        signals: SignalQueue,
        children: Children,
        worker_main: WorkerMain,
        events: Events,
        close_in_child: Callable[[Assignment], None],
    ) -> None:
        self.children = children
        self._loop = loop
        self._signals = signals
        self._worker_main = worker_main
        self._events = events
        self._close_in_child = close_in_child
        self._by_pid: dict[int, WorkerHandle] = {}
        self.scoreboard = Scoreboard()
        self.clients: ClientCounts | None = None  # made when the first generation needs it
        # Children that are no workers, and who wants to know the status they end with.
        self._others: dict[int, Callable[[int], object]] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(list(self._by_pid.values()))

    def of(self, generation: Generation, *states: State) -> list[WorkerHandle]:
        """The workers of one generation that are in one of `states`."""
        return [w for w in self if w.generation is generation and w.state in states]

    # -- birth -----------------------------------------------------------------------------------

    def spawn(self, slot: int, generation: Generation) -> WorkerHandle:
        """Fork a worker. It has boot_timeout to become ready. Raises OSError (EAGAIN)."""
        if self.clients is None and generation.counts_clients():
            self.clients = ClientCounts(self.scoreboard.rows)
        self._enlist(generation)
        row = self.scoreboard.take_row(os.getpid(), slot, generation.number)
        try:
            child = self.children.start(partial(self._live_as_worker, slot, row, generation))
        except OSError:
            self.scoreboard.clear(row)
            raise
        self.scoreboard.column(Column.PID)[row] = child.pid
        worker = WorkerHandle(slot, row, child, generation, self._loop.now)
        self._follow(worker)
        self._await_boot(worker)
        log.debug("%s started", worker)
        return worker

    def adopt(self, worker: WorkerHandle, state: State) -> None:
        """Follow a worker of the program that we were before an upgrade."""
        worker.state = state
        worker.told_to_leave |= state is State.DRAINING
        self._follow(worker)
        if state is State.STARTING:
            self._await_boot(worker)
        elif state is State.DRAINING:
            self._await_end(worker)
        elif state is State.KILLED:
            worker.child.send_signal(signal.SIGKILL)

    def _follow(self, worker: WorkerHandle) -> None:
        self._by_pid[worker.pid] = worker
        self._loop.register(worker.child.pidfd, select.EPOLLIN, lambda _events: self.reap())
        self._loop.register(
            worker.channel.fileno(), select.EPOLLIN, lambda _events: self._listen(worker)
        )

    def _await_boot(self, worker: WorkerHandle) -> None:
        timeout = worker.generation.config.workers.boot_timeout
        self._kill_after(worker, timeout, f"not ready after {timeout:g}s (boot_timeout)")

    def _await_end(self, worker: WorkerHandle) -> None:
        patience = worker.generation.config.workers.graceful_timeout
        self._kill_after(
            worker, patience + KILL_AFTER_DRAIN, f"still there after {patience:g}s of draining"
        )

    def _enlist(self, generation: Generation) -> None:
        """Give its services a place for their counters."""
        wanted = [service.name for service in generation.config.services]
        used = {each.name for worker in self for each in worker.generation.config.services}
        self.scoreboard.enlist(wanted, used | set(wanted))

    def _live_as_worker(
        self, slot: int, row: int, generation: Generation, channel: Channel
    ) -> NoReturn:
        board = self.scoreboard
        assignment = Assignment(slot, row, generation, channel, board, self.clients)
        self.live_as_child(assignment, self._worker_main, f"worker {slot}")

    def live_as_child(self, assignment: Assignment, main: WorkerMain, name: str) -> NoReturn:
        """In a forked child: give back all that is the master's, then live and exit.

        Signals stay blocked until the child has handlers of its own.
        """
        status = ExitCode.BOOT_FAILED
        try:
            self._signals.reset_for_child()
            self._loop.close()
            self.scoreboard.close_descriptor()
            if self.clients is not None:
                self.clients.close_descriptor()
            for sibling in self:
                sibling.child.close()
            self._close_in_child(assignment)
            status = ExitCode(main(assignment))
        except BaseException:
            log.critical("%s failed", name, exc_info=True)
        finally:
            # Not sys.exit: the master's stack must not be unwound, nor its exit handlers be run.
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    # -- life ------------------------------------------------------------------------------------

    def serve(self, worker: WorkerHandle) -> None:
        """Have a ready worker accept."""
        worker.channel.send(words.Serve())

    def drain(
        self, worker: WorkerHandle, heirs: Iterable[WorkerHandle] = (), movable: Iterable[str] = ()
    ) -> None:
        """Have it leave once its connections have moved to the heirs or have ended.

        `movable` names the services whose connections the heirs can take. May be called again
        with other heirs; the deadline stays.
        """
        worker.told_to_leave = True
        if worker.state is State.STARTING:
            self._dismiss(worker)
        if worker.enter(State.DRAINING):
            self._await_end(worker)
        if worker.state is State.DRAINING:
            settings = worker.generation.config.workers
            rows, ends = self._connect(heirs)
            message = words.Drain(
                settings.graceful_timeout, settings.drain_spread, list(movable), rows
            )
            self._say(worker, message, ends)

    def share(self, worker: WorkerHandle, count: int, heir: WorkerHandle) -> None:
        """Have it give `count` connections to the heir, and go on."""
        rows, ends = self._connect([heir])
        self._say(worker, words.Share(count, rows), ends)

    def _connect(self, heirs: Iterable[WorkerHandle]) -> tuple[list[int], list[socket.socket]]:
        """A socketpair to each heir that hears us; our ends, and the heirs' rows."""
        rows, ends = [], []
        for heir in list(heirs)[: words.MAX_DESCRIPTORS]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if heir.channel.send(words.Adopt(), (theirs.fileno(),)):
                rows.append(heir.row)
                ends.append(ours)
            else:
                ours.close()
            theirs.close()
        return rows, ends

    def _say(
        self, worker: WorkerHandle, message: words.AnyMessage, ends: list[socket.socket]
    ) -> None:
        worker.channel.send(message, tuple(end.fileno() for end in ends))
        for end in ends:
            end.close()

    def stop(self, worker: WorkerHandle) -> None:
        """Have it leave now."""
        worker.told_to_leave = True
        if worker.state is State.STARTING:
            self._dismiss(worker)
            return
        worker.enter(State.DRAINING)
        worker.channel.send(words.Stop())
        self._kill_after(worker, KILL_AFTER_STOP, "told to stop, but still there")

    def _dismiss(self, worker: WorkerHandle) -> None:
        """End one that has not served yet: it may be importing, and then it hears nothing."""
        if worker.enter(State.KILLED):
            worker.dismissed = True
            self._forget_deadline(worker)
            worker.child.send_signal(signal.SIGKILL)

    def kill(self, worker: WorkerHandle, why: str) -> None:
        """End it by force."""
        if worker.enter(State.KILLED):
            worker.killed_for = why
            log.error("%s: %s, killing it", worker, why)
            worker.child.send_signal(signal.SIGKILL)

    def abort(self, worker: WorkerHandle, why: str) -> None:
        """Have it write its stacks into the log and die; kill it if it cannot."""
        log.error("%s: %s; aborting it, its stacks follow", worker, why)
        worker.child.send_signal(signal.SIGABRT)
        self._kill_after(worker, KILL_AFTER_ABORT, "aborted, but still there")

    def hand_log(self, fd: int, path: str = "") -> None:
        """Have every worker log to another descriptor."""
        for worker in self:
            worker.channel.send(words.ReopenLog(path), (fd,))

    def look_for_stuck(self, now: float) -> None:
        """The watchdog's look; to be called every watchdog.LOOK seconds."""
        beats = self.scoreboard.column(Column.HEARTBEAT)
        for worker in self:
            limit = worker.generation.config.workers.stuck_timeout
            silent = worker.silence.look(beats[worker.row], now)
            if (
                limit
                and silent > limit
                and beats[worker.row]
                and not worker.aborted
                and worker.state in (State.READY, State.DRAINING)
            ):
                worker.aborted = True
                self.abort(worker, f"silent for {silent:.0f}s > {limit:g}s (stuck_timeout)")

    def facts(self, worker: WorkerHandle, now: float) -> recycle.Facts:
        """What is known of it."""
        accepted = self.scoreboard.column(Column.ACCEPTED)[worker.row]
        stat = procstat.read(worker.pid)
        return recycle.Facts(accepted, now - worker.born, 0 if stat is None else stat.resident)

    def _listen(self, worker: WorkerHandle) -> None:
        """A worker says something, or has closed its end."""
        for message in hear(self._loop, worker.channel, worker):
            if isinstance(message, words.Ready) and worker.enter(State.READY):
                self._forget_deadline(worker)
                worker.ready_at = self._loop.now
                self._events.on_ready(worker)
            elif isinstance(message, words.Failed):
                worker.failure = message
            elif isinstance(message, words.AnyAnswer):
                self._events.on_answer(worker, message)

    def _kill_after(self, worker: WorkerHandle, seconds: float, why: str) -> None:
        self._forget_deadline(worker)
        worker.deadline = self._loop.call_later(seconds, lambda: self.kill(worker, why))

    def _forget_deadline(self, worker: WorkerHandle) -> None:
        if worker.deadline is not None:
            worker.deadline.cancel()
            worker.deadline = None

    # -- death -----------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect every child that has ended; as PID 1 of a container, strangers' orphans too."""
        while (ended := self.children.reap()) is not None:
            pid, status, cpu = ended
            if pid in self._by_pid:
                self._bury(self._by_pid[pid], status, cpu)
            elif pid in self._others:
                self._others.pop(pid)(status)
            else:
                log.debug("reaped process %d, which is no child of ours", pid)

    def expect(self, pid: int, on_exit: Callable[[int], object]) -> None:
        """Call `on_exit(wait status)` when the child `pid`, which is no worker, has ended."""
        self._others[pid] = on_exit

    def _bury(self, worker: WorkerHandle, status: int, cpu: float) -> None:
        """A worker has ended: hear its last words, free what it had, tell."""
        self._listen(worker)
        before = worker.state
        worker.enter(State.GONE)
        del self._by_pid[worker.pid]
        self._forget_deadline(worker)
        self._loop.unregister(worker.child.pidfd)
        self._loop.unregister(worker.channel.fileno())
        worker.child.close()
        self.scoreboard.bury(worker.row, cpu)
        if self.clients is not None:
            self.clients.clear(worker.row)
        self._events.on_gone(worker, before, describe_exit(status))


def describe_exit(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
