"""The master: what happens when. Reads as the operator's manual; the doing is elsewhere.

It binds the listeners, forks the workers and then only waits: for signals, for children, for
what workers say. It serves nobody itself, never blocks and never runs user code.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
from collections.abc import Callable

from epolld import __version__
from epolld import config as configs
from epolld import log as logs
from epolld.config import Loaded
from epolld.errors import EpolldError, ExitCode
from epolld.host import limits, proctitle
from epolld.host.generation import Generation, WorkerMain
from epolld.host.listeners import (
    STORE_PREFIX,
    Inherited,
    open_listeners,
    tune,
    without_effect,
)
from epolld.host.pidfile import PidFile
from epolld.host.signals import SignalQueue, blocked, sent_by_terminal
from epolld.host.systemd import Notifier
from epolld.master import upgrade, watchdog
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.master.reload import Changeover
from epolld.master.staff import Staff
from epolld.master.upgrade import Origin, SavedMaster
from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.master")


class Master:
    """One daemon; `run` is its life."""

    def __init__(
        self,
        reload_config: Callable[[], Loaded],
        first: Generation,
        inherited: Inherited,
        worker_main: WorkerMain,
    ) -> None:
        self._reload_config = reload_config
        self._inherited = inherited
        self._identity = first.identity
        self._first = first
        self._pidfile: PidFile | None = None
        self._notifier = Notifier(None)
        self._loop = EventLoop()
        self._signals = SignalQueue()
        self._pool = Pool(self._loop, self._signals, worker_main, self, self._close_in_child)
        nothing = Generation(0, first.loaded, (), first.identity)
        self._staff = Staff(self._loop, self._pool, nothing)
        self._changeover: Changeover | None = None  # in progress
        self._last_number = 1
        self._reload_again = False  # a HUP came during a reload
        self._told_to_wait = False  # in the log, why a reload does not begin
        self._trouble = ""  # of the last reload, for the status line
        self._stopping = False
        self._trial = 0  # pid of the trial run of an upgrade, while it is under way
        self._exit_code = ExitCode.OK
        self._on_started: Callable[[str, int], None] = lambda reason, code: None
        # What each signal means.
        self._actions: dict[int, Callable[[], None]] = {
            signal.SIGHUP: self.reload,
            signal.SIGTERM: self.stop_gracefully,  # a second one: at once
            signal.SIGQUIT: self.stop_gracefully,
            signal.SIGINT: self.stop_fast,
            signal.SIGUSR1: self.reopen_logs,
            signal.SIGUSR2: self.upgrade,
            # One worker more, one less, never fewer than one; kept over reloads.
            signal.SIGTTIN: lambda: self._staff.change_count(+1),
            signal.SIGTTOU: lambda: self._staff.change_count(-1),
            signal.SIGWINCH: self.suspend,
            signal.SIGCHLD: self._pool.reap,
        }

    @property
    def _generation(self) -> Generation:
        """The one in force."""
        return self._staff.generation

    # -- start and end ---------------------------------------------------------------------------

    def run(
        self,
        pidfile: PidFile,
        notifier: Notifier,
        watchdog_interval: float | None,
        origin: Origin,
        on_started: Callable[[str, int], None],
    ) -> int:
        """Start the workers, and run the daemon until it is told to stop; returns its exit status.

        `on_started(reason, exit_code)` is called once: with "" and 0 when all workers are ready.
        `watchdog_interval`, in seconds, is how often systemd wants to hear from us.
        """
        self._pidfile = pidfile
        self._notifier = notifier
        self._on_started = on_started
        self._origin = origin
        proctitle.set_title(proctitle.master_title(self._first.config.master.title))
        self._signals.open(self._actions)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # an upgrade comes with all blocked
        self._loop.register(self._signals.fileno(), select.EPOLLIN, self._on_signals)
        for name in self._inherited.unused(self._first.listeners):
            if name.startswith(STORE_PREFIX):
                self._notifier.unstore(name)  # ours, of before a restart, and wanted no more
                self._inherited.give_up(name)
            else:
                log.warning("the inherited socket %r is used by no service", name)
        gc.collect()  # what is garbage now would be kept for ever by the freeze before a fork
        if origin.saved is None:
            self._start_generation(self._first)
        else:
            self._take_over(origin.saved)
        self._look()
        if watchdog_interval:
            self._feed_watchdog(watchdog_interval)
        self._loop.run()
        self._remove_listeners()
        self._signals.close()
        return self._exit_code

    def _on_signals(self, _events: int) -> None:
        self._obey(self._signals.take())

    def _obey(self, signals: list[int]) -> None:
        for number in signals:
            if number != signal.SIGCHLD:
                log.info("got %s", signal.Signals(number).name)
            self._actions[number]()

    def stop_gracefully(self) -> None:
        """TERM, QUIT: accept no more, leave when all connections have ended or at the deadline."""
        if self._stopping:
            self.stop_fast()
            return
        self._begin_to_stop()
        patience = self._generation.config.workers.graceful_timeout
        log.info("stopping: draining for up to %gs", patience)
        self._staff.stop()
        self._stop_when_alone()

    def stop_fast(self) -> None:
        """INT: close everything and leave."""
        self._begin_to_stop()
        log.info("stopping now")
        self._staff.stop_now()
        self._stop_when_alone()

    def _begin_to_stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._notifier.stopping("stopping")
            if self._changeover is not None:
                self._changeover.cancel("told to stop before it was ready")
            self._end_trial()
            self._remove_listeners()

    def _remove_listeners(self) -> None:
        """Close our copies: once the workers have closed theirs, new clients are refused."""
        for listener in self._generation.listeners:
            listener.remove()

    def _stop_when_alone(self) -> None:
        if self._stopping and not len(self._pool) and not self._trial:
            log.info("stopped")
            self._loop.stop()

    # -- reload ----------------------------------------------------------------------------------

    def reload(self) -> None:
        """HUP: read the configuration and user code anew, as a transaction."""
        if self._stopping:
            return
        if self._changeover is not None:
            self._reload_again = True  # one more afterwards, however many came
            return
        if self._must_wait():
            self._reload_again = True
            return
        self._notifier.reloading()
        old = self._generation
        try:
            loaded = self._reload_config()
            held = {listener.key: listener for listener in old.listeners}
            listeners = open_listeners(loaded.config.services, held, self._inherited)
        except EpolldError as error:
            self._reload_failed(str(error))
            return
        self._last_number += 1
        self._start_generation(Generation(self._last_number, loaded, listeners, self._identity))

    def _start_generation(self, generation: Generation) -> None:
        first = self._generation.number == 0
        self._changeover = Changeover(
            self._pool,
            generation,
            self._staff.wanted(generation),
            self._started if first else self._reloaded,
            self._start_failed if first else self._roll_back,
        )
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
        self._notifier.ready(self._status())
        self._on_started("", 0)
        self._reload_once_more()

    def _start_failed(self, generation: Generation, reason: str, exit_code: int) -> None:
        """The first generation cannot boot: then there is no daemon."""
        self._changeover = None
        code = ExitCode(exit_code or ExitCode.BOOT_FAILED)
        self._on_started(reason, code)
        if not self._stopping:
            for line in reason.splitlines():
                log.error("%s", line)
            log.error("start failed")
            self._exit_code = code
        self._staff.generation = generation  # its listeners are to be removed
        self._stopping = True
        self._stop_when_alone()

    def _reloaded(self, generation: Generation) -> None:
        """The new generation is ready: from now on it is the one in force."""
        old = self._generation
        for path in (
            *configs.needs_restart(old.config, generation.config),
            *without_effect(old.listeners, generation.listeners),
        ):
            log.warning("%s has changed, which takes effect at a restart", path)
        for change in configs.changes(old.config, generation.config):
            log.info("%s", change)
        self._trouble = ""
        self._configure_logs(generation)
        self._swap(generation)
        log.info(
            "reload done: generation %d, %d workers",
            generation.number,
            self._staff.wanted(generation),
        )
        self._notifier.ready(self._status())
        self._reload_once_more()

    def _swap(self, generation: Generation) -> None:
        """The new generation takes over."""
        old = self._generation
        self._changeover = None
        for listener in generation.listeners:
            try:
                tune(listener)
            except (OSError, EpolldError) as error:
                log.error("%s stays as it was: %s", listener, error)
            if listener not in old.listeners and listener.store_name():
                self._notifier.store(listener.store_name(), listener.sock.fileno())
        self._staff.put_in_force(generation)
        self._drop_listeners(old, kept=generation)
        most = generation.config.workers.max_connections
        shortage = limits.warn_of_shortage(most, len(generation.listeners))
        if shortage:
            log.warning("%s", shortage)

    def _roll_back(self, generation: Generation, reason: str, _exit_code: int) -> None:
        """The new generation cannot boot: forget it."""
        self._changeover = None
        self._drop_listeners(generation, kept=self._generation)
        if not self._stopping:
            self._reload_failed(reason)

    def _reload_failed(self, reason: str) -> None:
        for line in reason.splitlines():
            log.error("%s", line)
        first = reason.splitlines()[0] if reason else "unknown"
        log.error("reload failed: %s; generation %d goes on", first, self._generation.number)
        self._trouble = f"; the last reload failed: {first}"
        self._staff.converge()  # a worker may have died meanwhile
        self._notifier.ready(self._status())
        self._reload_once_more()

    def _must_wait(self) -> bool:
        """Whether too many older generations are still leaving; says so once."""
        leaving = self._staff.leaving()
        wait = leaving >= self._generation.config.workers.max_old_generations
        if wait and not self._told_to_wait:
            log.info("reload waits: %d generations are still leaving", leaving)
        self._told_to_wait = wait
        return wait

    def _reload_once_more(self) -> None:
        if self._reload_again and self._changeover is None and not self._must_wait():
            self._reload_again = False
            self.reload()

    def _drop_listeners(self, generation: Generation, kept: Generation) -> None:
        """Close what only `generation` listened on."""
        stay = {listener.sock for listener in kept.listeners}
        for listener in generation.listeners:
            if listener.sock not in stay:
                self._notifier.unstore(listener.store_name())
                self._inherited.give_up(listener.store_name())
                if listener.sock not in self._inherited:
                    listener.remove()

    # -- the number of workers -------------------------------------------------------------------

    def suspend(self) -> None:
        """WINCH: drain all workers and wait; clients queue at the listeners until HUP."""
        if sent_by_terminal():
            log.debug("WINCH ignored: this process belongs to a terminal, which sends it")
        elif self._stopping or self._changeover is not None:
            log.warning("WINCH ignored: a start, reload or stop is in progress")
        else:
            log.info("suspended: HUP resumes")
            self._staff.suspend()
            self._notifier.status(self._status())

    # -- what the pool tells ---------------------------------------------------------------------

    def on_ready(self, worker: WorkerHandle) -> None:
        """A worker has booted."""
        if self._changeover is not None and worker.generation is self._changeover.generation:
            self._changeover.on_ready(worker)
        elif worker.generation is self._generation:
            self._staff.on_ready(worker)

    def on_gone(self, worker: WorkerHandle, before: State, how: str) -> None:
        """A worker has ended: as it was told to, or it is to be replaced."""
        if worker.killed_for:
            how = f"{how}: {worker.killed_for}"
        expected = worker.dismissed or (before is State.DRAINING and how.endswith("status 0"))
        log.log(logging.INFO if expected else logging.WARNING, "%s %s", worker, how)
        if self._changeover is not None and worker.generation is self._changeover.generation:
            self._changeover.on_gone(worker, how)
        elif (
            worker.generation is self._generation
            and before is not State.DRAINING
            and not worker.dismissed
        ):
            self._staff.on_death(worker)
        self._stop_when_alone()
        self._reload_once_more()

    # -- the rest --------------------------------------------------------------------------------

    def reopen_logs(self) -> None:
        """USR1: open the log file anew. The master does it for all: it may have the right to."""
        fd = logs.reopen()
        if fd is not None:
            self._pool.hand_log(fd)
            log.info("log file reopened")

    def _configure_logs(self, generation: Generation) -> None:
        settings = generation.config.logging
        try:
            logs.configure(settings.level, settings.target, settings.format, settings.file)
        except EpolldError as error:
            log.error("logging stays as it was: %s", error)

    # -- upgrade in place --------------------------------------------------------------------------

    def upgrade(self) -> None:
        """USR2: execute the program anew, in this process, after a trial run."""
        if self._changeover is not None or self._stopping or self._trial:
            log.warning("upgrade refused: a start, reload, stop or upgrade is in progress")
            return
        try:
            pid, output = upgrade.start_trial(self._origin.config, self._origin.directory)
        except OSError as error:
            log.error("upgrade failed: cannot run %s: %s", self._origin.program(), error)
            return
        self._trial = pid
        log.info("upgrade: trial run of %s", self._origin.program())
        deadline = self._loop.call_later(upgrade.TRIAL_TIMEOUT, self._end_trial)

        def ended(code: int) -> None:
            self._trial = 0
            deadline.cancel()
            self._stop_when_alone()
            said = upgrade.read_trial(output)
            if self._stopping:
                return
            if code != 0:
                log.error("upgrade failed: the trial run ended with %d: %s", code, said)
            elif self._changeover is not None:
                log.warning("upgrade failed: a reload has begun meanwhile")
            else:
                self._execute()

        self._pool.expect(pid, ended)

    def _end_trial(self) -> None:
        """It takes too long, or nobody wants to know any more."""
        if self._trial:
            os.killpg(self._trial, signal.SIGKILL)

    def _execute(self) -> None:
        """Become the new program."""
        log.info("upgrade: executing %s", self._origin.program())
        self._notifier.reloading()
        with blocked(signal.valid_signals()):  # until the new program has handlers
            came = self._signals.take()
            try:
                upgrade.execute(self._save(came), {**os.environ, **self._origin.environ})
            except OSError as error:
                log.error("upgrade failed: cannot execute %s: %s", self._origin.program(), error)
        self._notifier.ready(self._status())
        self._obey(came)

    def _save(self, signals: list[int]) -> SavedMaster:
        """All that the next program is to know; `signals` have come and are not obeyed yet."""
        assert self._pidfile is not None
        return SavedMaster(
            signals=signals,
            format=upgrade.FORMAT,
            pid=os.getpid(),
            version=__version__,
            configs=upgrade.save_configs(self._pool, self._generation),
            generation=self._generation.number,
            last_number=self._last_number,
            extra_workers=self._staff.extra,
            suspended=self._staff.suspended,
            listeners=[upgrade.save_listener(each) for each in self._generation.listeners],
            inherited=self._inherited.names(),
            workers=upgrade.save_workers(self._pool, self._loop.now),
            scoreboard=self._pool.scoreboard.fileno(),
            scoreboard_layout=self._pool.scoreboard.layout(),
            pidfile=self._pidfile.path,
            pidfile_fd=self._pidfile.fileno(),
            directory=self._origin.directory,
        )

    def _take_over(self, saved: SavedMaster) -> None:
        """Go on where the program before us stopped, and replace its workers by a reload."""
        self._staff.generation = self._first
        self._staff.extra = saved.extra_workers
        self._staff.suspended = saved.suspended
        self._last_number = saved.last_number
        upgrade.restore_workers(saved, self._pool, self._generation, self._loop.now)
        log.info(
            "upgraded from epolld %s to %s; %d workers are adopted",
            saved.version,
            __version__,
            len(self._pool),
        )
        self._pool.reap()
        if saved.suspended:
            self._notifier.ready(self._status())
        else:
            self.reload()
        self._obey(saved.signals)

    # -- looking after it all --------------------------------------------------------------------

    def _look(self) -> None:
        """Every second: the watchdog, and the line for `systemctl status`."""
        self._pool.look_for_stuck(self._loop.now)
        if self._changeover is None and not self._stopping:
            self._staff.look()
            self._notifier.status(self._status())
        self._loop.call_later(watchdog.LOOK, self._look)

    def _status(self) -> str:
        return f"{self._staff.describe()}{self._trouble}"

    def _feed_watchdog(self, interval: float) -> None:
        """Tell systemd that this loop turns."""
        self._notifier.watchdog()
        self._loop.call_later(interval, lambda: self._feed_watchdog(interval))

    def _close_in_child(self, generation: Generation) -> None:
        """In a worker: close all that is the master's and that `generation` does not need."""
        if self._pidfile is not None:
            self._pidfile.close()
        needed = {listener.sock for listener in generation.listeners}
        known = [self._generation]
        if self._changeover is not None:
            known.append(self._changeover.generation)
        for each in known:
            for listener in each.listeners:
                if listener.sock not in needed:
                    listener.close()
        self._inherited.close_all_but(needed)
