"""One worker: boots, serves, drains, leaves.

    BOOTING → WAITING → SERVING → DRAINING → (the process exits)

It owns its connections. With the others it shares the listeners and the scoreboard, with the
master it talks over the channel, whose end of file means that the master is dead: then it
drains and leaves as if told to.
"""

from __future__ import annotations

import enum
import itertools
import logging
import os
import select
import signal
import time
from collections.abc import Collection, Mapping
from types import FrameType

from epolld import channel as words
from epolld import log as logs
from epolld import metrics
from epolld.channel import ChannelClosed
from epolld.config import METRICS, worker_count
from epolld.errors import EpolldError, ExitCode
from epolld.host import proctitle
from epolld.host.generation import Assignment
from epolld.host.secretfiles import read_secrets
from epolld.host.signals import SignalQueue
from epolld.net.acceptor import Gate
from epolld.net.application import WorkerContext
from epolld.net.handoff import Receiver
from epolld.net.loop import EventLoop, descriptor_served
from epolld.net.service import Service
from epolld.scoreboard import Column, WorkerState
from epolld.worker import boot
from epolld.worker.accesslogs import AccessLogs, log_ends, open_access_logs
from epolld.worker.admission import Admission
from epolld.worker.counting import Counting
from epolld.worker.departure import Departure
from epolld.worker.inspection import Inspector
from epolld.worker.lifecycle import Lifecycle
from epolld.worker.limits import Limits
from epolld.worker.runtimes import Runtimes

log = logging.getLogger("epolld.worker")

TICK = 1.0  # seconds: heartbeat, and the cure for stranded wake-ups
BEATS = 4  # heartbeats within a stuck_timeout, at least: one that comes late kills nobody


class State(enum.Enum):
    """A worker's life; it only goes forward. The value is its word in the process title."""

    BOOTING = "booting"
    WAITING = "waiting"  # ready, until the master says that all of its generation are
    SERVING = ""
    DRAINING = "draining"


def main(assignment: Assignment) -> int:
    """Live a worker's life in this forked process; returns its exit status."""
    worker = Worker(assignment)
    try:
        worker.boot()
    except EpolldError as error:
        reason, code = str(error), int(error.exit_code)
    except Exception as error:
        log.exception("worker %d cannot boot", assignment.slot)
        reason, code = f"{type(error).__name__}: {error}", int(ExitCode.BOOT_FAILED)
    else:
        worker.run()
        return ExitCode.OK
    assignment.channel.send(words.Failed(words.fit_text(reason), code))
    return code


class Worker:
    """The composition of one worker."""

    def __init__(self, assignment: Assignment) -> None:
        self._born = time.time_ns()
        self._slot = assignment.slot
        self._assignment = assignment
        self._config = assignment.generation.config
        self._channel = assignment.channel
        self._heartbeats = assignment.scoreboard.column(Column.HEARTBEAT)
        self._accepted = assignment.scoreboard.column(Column.ACCEPTED)
        self._signals = SignalQueue()
        self._loop = EventLoop()
        self._gate = Gate(self._loop)
        self._runtimes = Runtimes(
            self._loop,
            (*boot.TAKEN, *boot.IGNORED, signal.SIGABRT),
            self._gate.hold,
            self._config.workers.stuck_timeout,
        )
        self._lifecycle = Lifecycle(self._runtimes)
        self._admission = Admission(
            self._loop,
            self._gate,
            assignment.scoreboard,
            assignment.row,
            self._config.workers.max_connections,
            only_one=worker_count(self._config.workers) == 1,
        )
        self._counting = Counting(self._loop, assignment.scoreboard, assignment.row)
        self._access_logs: AccessLogs = {}
        self._services: list[Service] = []
        self._receiver = Receiver(self._loop)
        self._departure = Departure(
            self._loop,
            self._slot,
            assignment.scoreboard.column(Column.LIVE),
            self._services,
            self._admission,
            self._runtimes,
        )
        self._has_entrances = False  # a service has, so connections may come late
        self._state = State.BOOTING
        place = (self._slot, os.getpid(), assignment.generation.number)
        self._inspector = Inspector(self._loop, self._channel, self._services, place)

    def boot(self) -> None:
        """Do all that can fail, and tell the master that it did not. Raises EpolldError."""
        boot.settle_signals(self._signals, self._on_abort)
        self._enter(State.BOOTING)
        self._access_logs = open_access_logs(self._assignment)
        started_as_root = os.geteuid() == 0
        secrets = read_secrets(self._assignment.generation.loaded)
        boot.become(self._assignment)
        loaded = self._assignment.generation.loaded
        metrics.bind(self._assignment.scoreboard.sheet(self._assignment.row))
        imported = boot.import_all(loaded, secrets)
        if imported.application is not None:
            context = WorkerContext(self._loop, self._slot, self._assignment.generation.number)
            boot.start_application(loaded, imported.application, self._lifecycle, context)
        self._runtimes.facts.update(worker=self._slot, application=self._lifecycle.application)
        limits = Limits(self._loop, self._assignment)
        by_name: dict[str, Service] = {}
        openers = {}
        ids = itertools.count(os.getpid() << 32)  # so that an id is unique over all workers
        for settings in self._config.services:
            service = self._runtimes.make_service(
                settings,
                imported.handlers[settings.name],
                self._admission.on_change,
                ids,
            )
            if settings.tls is not None:
                service.speak_tls(boot.tls_server(self._loop, settings, self._assignment))
            self._services.append(service)
            self._counting.add(service)
            if settings.access_log:
                log_ends(service, self._access_logs[settings.access_log], self._loop)
            by_name[settings.name] = service
            openers[settings.name] = limits.protect(service, settings)
            self._has_entrances |= openers[settings.name] is not service
        for listener in self._assignment.generation.listeners:
            if listener.service.name == METRICS:
                continue  # the exporter's
            service = by_name[listener.service.name]
            service.on_listener(listener.sock)
            self._gate.add(listener.sock, service, openers[service.name])
        boot.enter_root(self._config, started_as_root)
        self._receiver.services = by_name
        self._loop.register(self._channel.fileno(), select.EPOLLIN, self._on_channel)
        self._loop.register(self._signals.fileno(), select.EPOLLIN, self._on_signals)
        boot.settle_memory()
        if 0 < self._config.workers.stuck_timeout < BEATS * TICK:
            self._beat()
        self._tick()
        self._enter(State.WAITING)
        self._channel.send(words.Ready())

    def run(self) -> None:
        """Serve until there is nothing left to serve."""
        if self._config.workers.reload_on_change and self._slot == 0:
            from epolld.worker.codewatch import CodeWatch

            CodeWatch(self._loop, self._born, lambda: self._state is not State.DRAINING).look()
        self._runtimes.run()
        self._lifecycle.stop()
        self._runtimes.close(self._departure.time_left())
        self._counting.publish()
        logs.tell_suppressed(last=True)

    # -- what comes from outside -----------------------------------------------------------------

    def _on_channel(self, _events: int) -> None:
        """The master says something, or it is dead."""
        while True:
            try:
                received = self._channel.receive()
            except ChannelClosed:
                self._loop.unregister(self._channel.fileno())
                log.warning("worker %d: the master is dead, draining", self._slot)
                self.drain(self._config.workers.graceful_timeout)
                return
            except ValueError as error:
                log.error("worker %d: from the master: %s", self._slot, error)
                continue
            if received is None:
                return
            self._obey(*received)

    def _obey(self, message: words.AnyMessage, descriptors: tuple[int, ...]) -> None:
        match message:
            case words.Serve():
                self.serve()
            case words.Drain(patience, spread, movable, heirs):
                self.drain(patience, spread, movable, dict(zip(heirs, descriptors, strict=False)))
            case words.Share(count, heirs):
                self.share(count, dict(zip(heirs, descriptors, strict=False)))
            case words.Adopt():
                self.adopt(descriptors[0])
            case words.Stop():
                self.stop()
            case words.ReopenLog(path):
                self._reopen(path, descriptors[0])
            case words.SetLogLevel(level):
                logs.set_level(level)
            case words.WalkConnections(number, selection, kill):
                self._inspector.walk(number, selection, kill)
            case words.WalkOn(number):
                self._inspector.walk_on(number)
            case words.WalkNoMore(number):
                self._inspector.walk_no_more(number)
            case words.DumpStacks(number):
                self._inspector.tell_stacks(number)

    def _reopen(self, path: str, fd: int) -> None:
        """Log to another file: the daemon's log, or the access log that had this path."""
        if not path:
            logs.adopt(fd)
            boot.arm_faulthandler()
        elif path in self._access_logs:
            self._access_logs[path].adopt(fd)
        else:
            os.close(fd)

    def _on_signals(self, _events: int) -> None:
        for number in self._signals.take():
            if number in (signal.SIGTERM, signal.SIGQUIT):
                self.drain(self._config.workers.graceful_timeout)
            elif number == signal.SIGINT:
                self.stop()
            elif number == signal.SIGUSR1:
                logs.reopen()
                boot.arm_faulthandler()

    def _on_abort(self, frame: FrameType | None) -> None:
        """Aborted, as a rule by the master's watchdog: say who was being served."""
        served = self._runtimes.connection_at_work()
        if served is None and (fd := descriptor_served(frame)) is not None:
            connections = [t for service in self._services for t in service.transports]
            served = next((t for t in connections if t.fileno() == fd), None)
        if served is None:
            log.critical("worker %d was serving no connection when it was aborted", self._slot)
            return
        log.critical(
            "worker %d was serving %s (%s) when it was aborted",
            self._slot,
            served.describe_peer(),
            served.service.name,
        )

    # -- a worker's life -------------------------------------------------------------------------

    def serve(self) -> None:
        """Accept from now on."""
        if self._state is State.WAITING:
            self._enter(State.SERVING)
            self._admission.start()
            self._watch_lag()

    def drain(
        self,
        patience: float,
        spread: float = 0.0,
        movable: Collection[str] = (),
        heirs: Mapping[int, int] | None = None,
    ) -> None:
        """Accept no more; leave when all connections have moved or ended.

        `heirs` maps the rows of the workers that take connections of the services in `movable` to
        descriptors towards them. What is still there after `patience` seconds is closed.
        """
        if self._state is not State.DRAINING:
            self._admission.stop()
            self._enter(State.DRAINING)
            self._receiver.close()
            self._departure.begin(patience, spread)
            self._runtimes.on_draining()
            self._lifecycle.draining()
            for service in self._services:
                service.on_draining()
        self._departure.send_away(movable, heirs or {})

    def share(self, count: int, heirs: Mapping[int, int]) -> None:
        """Give `count` connections away and go on serving."""
        self._departure.share(count, heirs)

    def adopt(self, fd: int) -> None:
        """Take connections over `fd`; a worker that is to leave refuses, so they stay there."""
        if self._state is State.DRAINING:
            os.close(fd)
        else:
            self._receiver.add_donor(fd)

    def stop(self) -> None:
        """Leave now: close all connections, with what the kernel still takes."""
        if self._state is not State.DRAINING:
            self._admission.stop()
            self._enter(State.DRAINING)
        self._departure.end_now()

    def _watch_lag(self) -> None:
        """Take no more connections than the loop keeps up with."""
        limit = self._config.workers.max_lag
        if limit:
            from epolld.worker.overload import Overload

            Overload(self._loop, self._slot, limit, self._admission.set_overloaded).start()

    def _beat(self) -> None:
        """More heartbeats than ticks, for a short stuck_timeout."""
        self._loop.call_later(self._config.workers.stuck_timeout / BEATS, self._beat)
        self._heartbeats[self._assignment.row] = time.monotonic_ns()

    def _tick(self) -> None:
        """Once a second. The heartbeat comes from the loop that serves, so it cannot lie."""
        self._loop.call_later(TICK, self._tick)
        row = self._assignment.row
        now = time.monotonic_ns()
        self._heartbeats[row] = now
        self._counting.tick(now / 1e9, TICK)
        self._accepted[row] = sum(service.accepted for service in self._services)
        self._admission.tick()
        logs.tell_suppressed()
        if self._has_entrances and self._state is State.DRAINING:
            self._departure.send_latecomers_away()

    def _enter(self, state: State) -> None:
        self._state = state
        states = self._assignment.scoreboard.column(Column.STATE)
        states[self._assignment.row] = WorkerState[state.name]
        generation = self._assignment.generation
        proctitle.set_title(
            proctitle.worker_title(
                self._config.master.title, self._slot, generation.number, state.value
            )
        )
