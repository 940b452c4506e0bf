"""From a forked copy of the master to a worker that can serve: order matters here.

First what makes the process safe to talk to (signals), then who it is (umask, user), and only
then code that the user wrote.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from epolld import log
from epolld.channel import DUMP
from epolld.config import Loaded
from epolld.config import Service as ServiceConfig
from epolld.errors import BootError, ConfigError, Problem
from epolld.host import confinement
from epolld.host.generation import Assignment
from epolld.host.secretfiles import with_secrets
from epolld.host.signals import SignalQueue
from epolld.net.application import WorkerContext
from epolld.net.loop import EventLoop
from epolld.services.handlers import PASSED, runtime_of
from epolld.services.registry import (
    OptionError,
    ServiceError,
    make_factory,
    resolve,
    resolve_application,
)
from epolld.worker.lifecycle import Lifecycle
from epolld.worker.runtimes import Handler

log_import = logging.getLogger("epolld.worker")
log_application = logging.getLogger("epolld.application")

if TYPE_CHECKING:
    from epolld.net.handshake import TlsServer

# What a worker listens to; all others of the master's are received and ignored, so that nobody
# ends a worker by a signal meant for the master.
TAKEN = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1)
IGNORED = (
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


def settle_signals(signals: SignalQueue, on_abort: Callable[[FrameType | None], None]) -> None:
    """Take signals as a worker, in a process group of its own.

    The terminal's Ctrl-C reaches the master alone, which ends its workers in order. The master
    forked with all signals blocked; from here on they may come.
    """
    os.setpgid(0, 0)
    signals.open((*TAKEN, *IGNORED))

    def aborted(_number: int, frame: FrameType | None) -> None:
        on_abort(frame)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGABRT)

    # In this order: at ABRT faulthandler's C handler dumps all stacks even if Python is stuck
    # in C code, and then raises the signal again for the handler that was there before: ours,
    # which runs if Python still can and knows the peer.
    signal.signal(signal.SIGABRT, aborted)
    arm_faulthandler()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def arm_faulthandler() -> None:
    """Dump stacks into the log; again after its descriptor changed.

    At a fatal signal, and at DUMP without further ado: the master sends that to a worker which
    does not answer, and it works even if Python is stuck in C code.
    """
    faulthandler.enable(log.output_fd(), all_threads=True)
    faulthandler.register(DUMP, log.output_fd(), all_threads=True)


def become(assignment: Assignment) -> None:
    """Take on the configured log, umask, limits and user; raises PathError, PrivilegeError.

    The log while there is still the right to open it.
    """
    generation = assignment.generation
    logging = generation.config.logging
    log.configure(logging.level, logging.target, logging.format, logging.file)
    arm_faulthandler()
    os.umask(generation.config.master.umask)
    confinement.confine(generation.config, generation.identity)


enter_root = confinement.enter_root


class Imported(NamedTuple):
    """User code, with its options applied."""

    handlers: dict[str, Handler]  # by service
    application: Callable[[], Any] | None  # makes it


def import_all(loaded: Loaded, secrets: dict[str, str]) -> Imported:
    """Import what the services name, and the application; `secrets` are what their options name.

    The first user code that runs. Raises ConfigError with the places of all that is wrong.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: users' modules are found here
    if loaded.config.workers.reload_on_change:
        # A compiled file counts as fresh if it has the second and the size of its source: not
        # enough for somebody who changes one character twice.
        sys.dont_write_bytecode = True
    handlers: dict[str, Handler] = {}
    application = None
    problems: list[Problem] = []
    settings = loaded.config.application
    if settings.type is not None:
        with _collecting(problems, loaded, "application", "type"):
            application = make_factory(
                resolve_application(settings.type), with_secrets(settings.options, secrets)
            )
    for service in loaded.config.services:
        with _collecting(problems, loaded, f"services.{service.name}", "protocol"):
            handlers[service.name] = import_handler(service, secrets)
    if problems:
        raise ConfigError(problems)
    return Imported(handlers, application)


@contextlib.contextmanager
def _collecting(problems: list[Problem], loaded: Loaded, path: str, name: str) -> Iterator[None]:
    """Add what is wrong with the user code that setting `path`.`name` names."""
    try:
        yield
    except ServiceError as error:
        problems.append(loaded.problem(f"{path}.{name}", str(error)))
        if loaded.config.workers.reload_on_change and error.__cause__ is not None:
            log_import.error("cannot be imported:", exc_info=error.__cause__)
    except OptionError as error:
        problems += [
            loaded.problem(f"{path}.options.{option}", message)
            for option, message in error.problems
        ]


def import_handler(service: ServiceConfig, secrets: dict[str, str]) -> Handler:
    """What serves the connections of one service; raises ServiceError or OptionError."""
    asked = None if service.runtime == "auto" else service.runtime
    found = resolve(service.protocol, asked)
    runtime = asked or runtime_of(found)
    options = with_secrets(service.options, secrets)
    return Handler(make_factory(found, options, PASSED[runtime]), runtime)


def tls_server(loop: EventLoop, service: ServiceConfig, assignment: Assignment) -> TlsServer:
    """What a service needs to speak TLS; the master has read the keys. Raises BootError."""
    from epolld.net.handshake import TlsServer  # OpenSSL: megabytes that most services do not need

    assert service.tls is not None
    read = assignment.generation.tls.get(service.name)
    if read is None:  # after an upgrade, until the reload that follows it
        raise BootError(f"services.{service.name}.tls: the certificate could not be read")
    settings = service.tls
    return TlsServer(
        loop,
        read.context,
        settings.handshake_timeout,
        settings.max_handshakes,
        settings.starttls,
    )


def start_application(
    loaded: Loaded, factory: Callable[[], Any], lifecycle: Lifecycle, context: WorkerContext
) -> None:
    """Make the application and call its start hook; ConfigError if that fails."""
    try:
        lifecycle.start(factory, context)
    except BaseException as error:  # as in an import, sys.exit() too
        name = loaded.config.application.type
        log_application.exception("the application %s does not start", name)
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        message = f"{name} does not start: {reason}"
        raise ConfigError([loaded.problem("application.type", message)]) from error


def settle_memory() -> None:
    """Leave what is there after the boot out of every later garbage collection.

    It lives as long as the process, and a collector that does not visit it does not write to
    the pages that it shares with the master.
    """
    gc.collect()
    gc.freeze()
