"""A change of generation as a transaction: the new one is ready, or nothing has changed.

    starting → done      all new workers are ready: they serve, the old ones drain
             ↘ failed    one cannot boot: the new ones go, the old ones never noticed

`Changeover` is that and no more; the first start is the same with no old generation. `Reloads` is
what stands around it: it reads the configuration and binds the addresses before, swaps the
generations after, and has one change at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from epolld import config as configs
from epolld import log as logs
from epolld.config import Loaded
from epolld.errors import EpolldError, ExitCode
from epolld.host import limits
from epolld.host.generation import Generation, open_tls
from epolld.host.listeners import Inherited, open_listeners, tune, without_effect
from epolld.host.systemd import Notifier
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.master.staff import Staff

log = logging.getLogger("epolld.master")


class Outcome(msgspec.Struct, frozen=True):
    """How a reload went."""

    ok: bool
    message: str  # as in the log
    generation: int  # the one in force now
    workers: int
    changes: list[str] = []  # of the configuration
    warnings: list[str] = []  # what takes effect at a restart only
    problems: list[str] = []  # why it failed, line by line
    exit_code: int = 0


Waiter = Callable[[Outcome], object]


class Changeover:
    """Starts the workers of a new generation and waits until all are ready."""

    def __init__(
        self,
        pool: Pool,
        generation: Generation,
        count: int,
        on_done: Callable[[Generation], None],
        on_failed: Callable[[Generation, str, int], None],
    ) -> None:
        self._pool = pool
        self.generation = generation
        self._count = count
        self._on_done = on_done
        self._on_failed = on_failed
        self.over = False

    def begin(self) -> None:
        """Fork the new workers; they import user code afresh, so changed code is loaded."""
        for slot in range(self._count):
            try:
                self._pool.spawn(slot, self.generation)
            except (OSError, OverflowError) as error:
                self._fail(f"cannot start worker {slot}: {error}", 0)
                return

    def on_ready(self, _worker: WorkerHandle) -> None:
        """One of ours has booted."""
        if not self.over and len(self._pool.of(self.generation, State.READY)) == self._count:
            self.over = True
            self._on_done(self.generation)

    def on_gone(self, worker: WorkerHandle, how: str) -> None:
        """One of ours has ended, which it should not have."""
        if worker.failure is not None:
            self._fail(worker.failure.reason, worker.failure.exit_code)
        else:
            self._fail(f"worker {worker.slot} {how} before all were ready", 0)

    def cancel(self, reason: str) -> None:
        """Give up: the daemon stops, say."""
        self._fail(reason, 0)

    def _fail(self, reason: str, exit_code: int) -> None:
        if self.over:
            return
        self.over = True
        for worker in self._pool.of(self.generation, State.STARTING, State.READY):
            self._pool.stop(worker)
        self._on_failed(self.generation, reason, exit_code)


class Reloads:
    """Puts one generation after another in force, and says how it went."""

    def __init__(
        self,
        pool: Pool,
        staff: Staff,
        inherited: Inherited,
        read_config: Callable[[], Loaded],
        on_started: Callable[[str, int], None],
    ) -> None:
        self.notifier = Notifier(None)
        self.on_ended: Callable[[bool], object] = lambda done: None  # a reload worked, or not
        self.last_number = 1  # of a generation
        self._pool = pool
        self._staff = staff
        self._inherited = inherited
        self._read_config = read_config
        self._on_started = on_started  # of the first start: a reason and an exit code, or "" and 0
        self._changeover: Changeover | None = None  # in progress
        self._again = False  # another was asked for meanwhile
        self._told_to_wait = False  # in the log, why a reload does not begin
        self._trouble = ""  # of the last one, for the status line
        self._waiting: list[Waiter] = []  # who asked for the reload that is to come
        self._hearing: list[Waiter] = []  # who asked for the one in progress
        self.last: Outcome | None = None
        self.last_at = 0.0  # of the monotonic clock

    def in_progress(self) -> bool:
        """Whether a start or reload is under way."""
        return self._changeover is not None

    def coming(self) -> Generation | None:
        """The generation that is being started."""
        return None if self._changeover is None else self._changeover.generation

    def status(self) -> str:
        """The line for `systemctl status`."""
        return f"{self._staff.describe()}{self._trouble}"

    def start(self, generation: Generation) -> None:
        """Start the first generation."""
        self._begin(generation, self._started, self._start_failed)

    def await_next(self, waiter: Waiter) -> None:
        """Have `waiter` hear how the next reload went that begins after now."""
        self._waiting.append(waiter)

    def request(self) -> None:
        """Read the configuration and user code anew; one at a time, however many are asked for."""
        if self._staff.stopping:
            self._give_up("told to stop before it was done")
            return
        if self._changeover is not None or self._must_wait():
            self._again = True
            return
        self._hearing, self._waiting = self._waiting, []
        self.notifier.reloading()
        old = self._staff.generation
        try:
            loaded = self._read_config()
            tls = open_tls(loaded)
            held = {listener.key: listener for listener in old.listeners}
            listeners = open_listeners(configs.listening(loaded.config), held, self._inherited)
        except EpolldError as error:
            self._failed(str(error), error.exit_code)
            return
        self.last_number += 1
        generation = Generation(self.last_number, loaded, listeners, old.identity, tls)
        self._begin(generation, self._done, self._roll_back)

    def request_pending(self) -> None:
        """Begin the reload that was asked for during another, if it need not wait any more."""
        if self._again and self._changeover is None and not self._must_wait():
            self._again = False
            self.request()

    def cancel(self, reason: str) -> None:
        """Give up what is in progress: the daemon stops."""
        if self._changeover is not None:
            self._changeover.cancel(reason)
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Tell all who wait that nothing will come of it."""
        self._hearing += self._waiting
        self._waiting = []
        self._tell(self.outcome(False, f"reload failed: {reason}", problems=[reason]))

    def outcome(self, ok: bool, message: str, **facts: Any) -> Outcome:
        """How something went, and how it stands now."""
        generation = self._staff.generation
        return Outcome(ok, message, generation.number, self._staff.wanted(generation), **facts)

    def _tell(self, outcome: Outcome) -> None:
        """Tell all who asked for it."""
        hearing, self._hearing = self._hearing, []
        for waiter in hearing:
            waiter(outcome)

    def on_ready(self, worker: WorkerHandle) -> bool:
        """A worker has booted; False if it is none of the coming generation's."""
        if self._changeover is None or worker.generation is not self._changeover.generation:
            return False
        self._changeover.on_ready(worker)
        return True

    def on_gone(self, worker: WorkerHandle, how: str) -> bool:
        """A worker has ended; False if it was none of the coming generation's."""
        if self._changeover is None or worker.generation is not self._changeover.generation:
            return False
        self._changeover.on_gone(worker, how)
        return True

    def _begin(
        self,
        generation: Generation,
        on_done: Callable[[Generation], None],
        on_failed: Callable[[Generation, str, int], None],
    ) -> None:
        count = self._staff.wanted(generation)
        self._changeover = Changeover(self._pool, generation, count, on_done, on_failed)
        self._changeover.begin()

    def _started(self, generation: Generation) -> None:
        """The first generation is ready."""
        self._swap(generation)
        places = ", ".join(f"{each} ({each.service.name})" for each in generation.listeners)
        log.info(
            "ready: %d workers, generation %d, listening on %s",
            self._staff.wanted(generation),
            generation.number,
            places,
        )
        self.notifier.ready(self.status())
        self._on_started("", 0)
        self.request_pending()

    def _start_failed(self, generation: Generation, reason: str, exit_code: int) -> None:
        """The first generation cannot boot: then there is no daemon."""
        self._changeover = None
        self._staff.generation = generation  # its listeners are to be removed
        if not self._staff.stopping:
            for line in reason.splitlines():
                log.error("%s", line)
            log.error("start failed")
        self._on_started(reason, exit_code or ExitCode.BOOT_FAILED)

    def _done(self, generation: Generation) -> None:
        """The new generation is ready: from now on it is the one in force."""
        old = self._staff.generation
        at_restart = [
            *configs.needs_restart(old.config, generation.config),
            *without_effect(old.listeners, generation.listeners),
        ]
        for path in at_restart:
            log.warning("%s has changed, which takes effect at a restart", path)
        changes = configs.changes(old.config, generation.config)
        for change in changes:
            log.info("%s", change)
        self._trouble = ""
        _configure_logs(generation)
        self._swap(generation)
        self.on_ended(True)
        count = self._staff.wanted(generation)
        log.info("reload done: generation %d, %d workers", generation.number, count)
        self.notifier.ready(self.status())
        warnings = [f"{path} has changed, which takes effect at a restart" for path in at_restart]
        self._remember(
            self.outcome(
                True,
                f"reload done: generation {generation.number}, {count} workers",
                changes=changes,
                warnings=warnings,
            )
        )
        self.request_pending()

    def _swap(self, generation: Generation) -> None:
        """The new generation takes over."""
        old = self._staff.generation
        self._changeover = None
        for listener in generation.listeners:
            try:
                tune(listener)
            except (OSError, EpolldError) as error:
                log.error("%s stays as it was: %s", listener, error)
            if listener not in old.listeners and listener.store_name():
                self.notifier.store(listener.store_name(), listener.sock.fileno())
        self._staff.put_in_force(generation)
        for ending in generation.expiring():
            log.warning("%s", ending)
        self._drop_listeners(old, kept=generation)
        most = generation.config.workers.max_connections
        shortage = limits.warn_of_shortage(most, len(generation.listeners))
        if shortage:
            log.warning("%s", shortage)

    def _roll_back(self, generation: Generation, reason: str, exit_code: int) -> None:
        """The new generation cannot boot: forget it."""
        self._changeover = None
        self._drop_listeners(generation, kept=self._staff.generation)
        if not self._staff.stopping:
            self._failed(reason, exit_code)

    def _remember(self, outcome: Outcome) -> None:
        """It is over: for those who ask later, and for those who wait."""
        self.last = outcome
        self.last_at = time.monotonic()
        self._tell(outcome)

    def _failed(self, reason: str, exit_code: int) -> None:
        self.on_ended(False)
        for line in reason.splitlines():
            log.error("%s", line)
        first = reason.splitlines()[0] if reason else "unknown"
        number = self._staff.generation.number
        log.error("reload failed: %s; generation %d goes on", first, number)
        self._trouble = f"; the last reload failed: {first}"
        self._staff.converge()  # a worker may have died meanwhile
        self.notifier.ready(self.status())
        self._remember(
            self.outcome(
                False,
                f"reload failed: {first}; generation {number} goes on",
                problems=reason.splitlines(),
                exit_code=exit_code or ExitCode.BOOT_FAILED,
            )
        )
        self.request_pending()

    def _must_wait(self) -> bool:
        """Whether too many older generations are still leaving; says so once."""
        leaving = self._staff.leaving()
        wait = leaving >= self._staff.generation.config.workers.max_old_generations
        if wait and not self._told_to_wait:
            log.info("reload waits: %d generations are still leaving", leaving)
        self._told_to_wait = wait
        return wait

    def _drop_listeners(self, generation: Generation, kept: Generation) -> None:
        """Close what only `generation` listened on."""
        stay = {listener.sock for listener in kept.listeners}
        for listener in generation.listeners:
            if listener.sock not in stay:
                self.notifier.unstore(listener.store_name())
                self._inherited.give_up(listener.store_name())
                if listener.sock not in self._inherited:
                    listener.remove()


def _configure_logs(generation: Generation) -> None:
    settings = generation.config.logging
    try:
        logs.configure(settings.level, settings.target, settings.format, settings.file)
    except EpolldError as error:
        log.error("logging stays as it was: %s", error)
