"""One exporter: boots, answers scrapes, leaves when it is told to or its master is dead.

Forked by the master as a worker is, with the listening sockets of `metrics.bind`, a channel and the
scoreboard. What is costly (importing prometheus-client, writing a page) happens here and nowhere
else.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import time
from http import HTTPStatus
from typing import Any

from epolld import channel as words
from epolld import log as logs
from epolld.channel import ChannelClosed
from epolld.config import METRICS
from epolld.errors import EpolldError, ExitCode
from epolld.exporter import snapshot
from epolld.exporter.pages import Answer, Http, plain
from epolld.host import privileges, proctitle
from epolld.host.generation import Assignment
from epolld.host.signals import SignalQueue
from epolld.net.acceptor import Gate
from epolld.net.loop import EventLoop
from epolld.net.service import Service

log = logging.getLogger("epolld.exporter")

MAX_CONNECTIONS = 64
TICK = 1.0  # seconds: the cure for stranded wake-ups, as in a worker
LAST_LOOK = 0.05  # seconds between two looks whether the last connection is closed
PATIENCE = 2.0  # seconds for the last answers

TAKEN = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
IGNORED = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


def main(assignment: Assignment) -> int:
    """Live an exporter's life in this forked process; returns its exit status."""
    exporter = Exporter(assignment)
    try:
        exporter.boot()
    except EpolldError as error:
        reason, code = str(error), int(error.exit_code)
    except Exception as error:
        log.exception("exporter cannot boot")
        reason, code = f"{type(error).__name__}: {error}", int(ExitCode.BOOT_FAILED)
    else:
        exporter.run()
        return ExitCode.OK
    assignment.channel.send(words.Failed(words.fit_text(reason), code))
    return code


class Collected:
    """What prometheus-client's encoders want of a registry."""

    def __init__(self, found: list[Any]) -> None:
        self._found = found

    def collect(self) -> list[Any]:
        """The families."""
        return self._found


class Exporter:
    """The composition of the exporter."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._board = assignment.scoreboard
        self._channel = assignment.channel
        self._master = os.getppid()
        self._signals = SignalQueue()
        self._loop = EventLoop()
        self._gate = Gate(self._loop)
        self._leaving = False
        pages = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
        self._service = Service(
            self._loop,
            METRICS,
            lambda: Http(pages, lambda: self._leaving),
            on_change=self._on_change,
        )

    def boot(self) -> None:
        """Do all that can fail, and tell the master that it did not. Raises EpolldError."""
        generation = self._assignment.generation
        os.setpgid(0, 0)  # the terminal's Ctrl-C is for the master alone
        self._signals.open(TAKEN)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        proctitle.set_title(proctitle.exporter_title(generation.config.master.title))
        logging = generation.config.logging
        logs.configure(logging.level, logging.target, logging.format, logging.file)
        faulthandler.enable(logs.output_fd(), all_threads=True)
        # Not the capability that the unit gives: without it, the unit's ProtectProc=invisible hides
        # the master, which has it, and with the master its figures.
        if generation.identity is not None:
            privileges.drop(generation.identity)
        from epolld.exporter import families  # noqa: F401  prometheus-client, before it is needed

        self._loop.register(self._channel.fileno(), select.EPOLLIN, self._on_channel)
        self._loop.register(self._signals.fileno(), select.EPOLLIN, self._on_signals)
        for listener in generation.listeners:
            if listener.service.name == METRICS:
                self._gate.add(listener.sock, self._service)
        self._tick()
        self._channel.send(words.Ready())

    def run(self) -> None:
        """Answer until told to leave."""
        self._loop.run()

    # -- the pages -------------------------------------------------------------------------------

    def _metrics(self, accept: str) -> Answer:
        from prometheus_client.exposition import choose_encoder

        from epolld.exporter.families import families

        for _ in range(snapshot.TRIES):
            facts = snapshot.take(self._board)
            found = list(families(facts, not self._why_not_ready(), self._master))
            if facts.sequence == self._board.sequence():
                break  # no process has ended between its counters and its processor time

        encode, content_type = choose_encoder(accept)
        return Answer(HTTPStatus.OK, content_type, encode(Collected(found)))

    def _healthz(self, accept: str) -> Answer:
        """The master and this process live: an exporter does not outlive its master."""
        return plain(HTTPStatus.OK, "ok")

    def _readyz(self, accept: str) -> Answer:
        reason = self._why_not_ready()
        if reason:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        return plain(HTTPStatus.OK, "ok")

    def _why_not_ready(self) -> str:
        return snapshot.why_not_ready(self._board, time.monotonic_ns())

    # -- life --------------------------------------------------------------------------------------

    def _on_change(self, _step: int) -> None:
        if self._service.live >= MAX_CONNECTIONS:
            self._gate.shut("full")
        else:
            self._gate.open("full")

    def _tick(self) -> None:
        self._gate.requeue()
        self._loop.call_later(TICK, self._tick)

    def _on_channel(self, _events: int) -> None:
        while True:
            try:
                received = self._channel.receive()
            except ChannelClosed:  # the master is dead, or has become another program
                self._loop.unregister(self._channel.fileno())
                self.leave()
                return
            except ValueError as error:
                log.error("exporter: from the master: %s", error)
                continue
            if received is None:
                return
            message, descriptors = received
            if isinstance(message, words.ReopenLog):
                logs.adopt(descriptors[0])
                faulthandler.enable(logs.output_fd(), all_threads=True)
            elif isinstance(message, words.Stop):
                self.leave()

    def _on_signals(self, _events: int) -> None:
        if self._signals.take():
            self.leave()

    def leave(self) -> None:
        """Accept no more, finish the answers that are under way, end."""
        if not self._leaving:
            self._leaving = True
            self._gate.close()
            for transport in self._service.transports:
                protocol = transport.get_protocol()
                if isinstance(protocol, Http):
                    protocol.leave()
            self._loop.call_later(PATIENCE, self._loop.stop)
            self._leave_when_done()

    def _leave_when_done(self) -> None:
        if self._service.live:
            self._loop.call_later(LAST_LOOK, self._leave_when_done)
        else:
            self._loop.stop()
