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

from epolld import __version__, totals
from epolld import log as logs
from epolld.channel import AnyAnswer
from epolld.config import METRICS, Loaded
from epolld.errors import EpolldError, ExitCode
from epolld.host import proctitle
from epolld.host.children import Children
from epolld.host.controlsocket import ControlSocket
from epolld.host.generation import Assignment, Generation, WorkerMain
from epolld.host.listeners import STORE_PREFIX, Inherited
from epolld.host.pidfile import PidFile
from epolld.host.signals import SignalQueue, blocked, sent_by_terminal
from epolld.host.systemd import Notifier
from epolld.ledger import MasterState
from epolld.logsink import open_file
from epolld.master import upgrade, watchdog
from epolld.master.commands import Commands
from epolld.master.control import ControlServer, Session
from epolld.master.enquiry import Enquiries
from epolld.master.exporter import Exporter
from epolld.master.facts import Facts, restart_cause
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.master.reload import Reloads, Waiter
from epolld.master.staff import Staff
from epolld.master.trial import Trial
from epolld.master.upgrade import Origin, SavedMaster
from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.master")

DAY = 86400.0  # seconds


class Master:
    """One daemon; `run` is its life."""

    def __init__(
        self,
        reload_config: Callable[[], Loaded],
        first: Generation,
        inherited: Inherited,
        worker_main: WorkerMain,
        exporter_main: WorkerMain,
        loop: EventLoop | None = None,
        children: Children | None = None,
    ) -> None:
        self._inherited = inherited
        self._first = first
        self._pidfile: PidFile | None = None
        self._notifier = Notifier(None)
        self._loop = loop or EventLoop()
        self._signals = SignalQueue()
        self._pool = Pool(
            self._loop,
            self._signals,
            children or Children(),
            worker_main,
            self,
            self._close_in_child,
        )
        nothing = Generation(0, first.loaded, (), first.identity)
        self._staff = Staff(self._loop, self._pool, nothing)
        self._facts = Facts(self._pool)
        self._staff.on_recycle = lambda: self._facts.restarted("recycled")
        self._exporter = Exporter(
            self._loop,
            self._pool,
            exporter_main,
            self._facts.exporter_restarted,
            self._stop_when_alone,
        )
        self._reloads = Reloads(
            self._pool, self._staff, inherited, reload_config, self._on_first_start
        )
        self._enquiries = Enquiries(self._loop)
        self._commands = Commands(
            self._loop, self._pool, self._staff, self._reloads, self._enquiries, self
        )
        self._control = ControlServer(self._loop, self._commands.handle)
        self._reloads.on_ended = self._on_reload_ended
        self._trial = Trial(self._loop, self._pool)  # before an upgrade
        self._stopped = False
        self._exit_code = ExitCode.OK
        self._on_started: Callable[[str, int], None] = lambda reason, code: None
        # What each signal means.
        self._actions: dict[int, Callable[[], None]] = {
            # Read the configuration and user code anew, as a transaction.
            signal.SIGHUP: self._reloads.request,
            signal.SIGTERM: self.stop_gracefully,  # a second one: at once
            signal.SIGQUIT: self.stop_gracefully,
            signal.SIGINT: self.stop_fast,
            signal.SIGUSR1: self.reopen_logs,
            signal.SIGUSR2: self.upgrade,
            # One worker more, one less, never fewer than one; kept over reloads.
            signal.SIGTTIN: lambda: self._staff.change_count(+1),
            signal.SIGTTOU: lambda: self._staff.change_count(-1),
            signal.SIGWINCH: self.suspend_by_signal,
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
        control: tuple[ControlSocket, int | None] | None,
        on_started: Callable[[str, int], None],
    ) -> int:
        """Start the workers, and run the daemon until it is told to stop; returns its exit status.

        `control` is the control socket, and the group that may use it.
        `on_started(reason, exit_code)` is called once: with "" and 0 when all workers are ready.
        `watchdog_interval`, in seconds, is how often systemd wants to hear from us.
        """
        self._pidfile = pidfile
        self._notifier = self._reloads.notifier = notifier
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
        if control is not None:
            self._control.open(*control)
        self._facts.started()
        self._say()
        gc.collect()  # what is garbage now would be kept for ever by the freeze before a fork
        if origin.saved is None:
            self._exporter.put_in_force(self._first)  # which says that the daemon is not ready yet
            self._reloads.start(self._first)
        else:
            self._take_over(origin.saved)
        self._look()
        if watchdog_interval:
            self._feed_watchdog(watchdog_interval)
        self._loop.call_later(DAY, self._look_at_certificates)
        self._loop.run()
        for listener in self._generation.listeners:
            listener.remove()
        self._control.close()
        self._signals.close()
        return self._exit_code

    def _on_signals(self, _events: int) -> None:
        self._obey(self._signals.take())

    def _obey(self, signals: list[int]) -> None:
        for number in signals:
            if number != signal.SIGCHLD:
                log.info("got %s", signal.Signals(number).name)
            self._actions[number]()

    def _on_first_start(self, reason: str, exit_code: int) -> None:
        """The first generation is ready, or there will be no daemon."""
        if reason and not self._staff.stopping:
            self._exit_code = ExitCode(exit_code)
            self._staff.stopping = True
        self._on_started(reason, exit_code)
        self._say()
        self._stop_when_alone()

    def _on_reload_ended(self, done: bool) -> None:
        self._facts.reload_ended(done)
        self._say()
        if done:
            self._exporter.put_in_force(self._generation)

    def stop_gracefully(self) -> None:
        """TERM, QUIT: accept no more, leave when all connections have ended or at the deadline."""
        if self._staff.stopping:
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
        if not self._staff.stopping:
            self._staff.stopping = True
            self._notifier.stopping("stopping")
            self._reloads.cancel("told to stop before it was ready")
            self._trial.give_up()
            self._remove_listeners()
            self._say()

    def _remove_listeners(self) -> None:
        """Close our copies: once the workers have closed theirs, new clients are refused.

        The exporter answers until the end.
        """
        for listener in self._generation.listeners:
            if listener.service.name != METRICS:
                listener.remove()

    def _stop_when_alone(self) -> None:
        alone = self._staff.stopping and not len(self._pool) and not self._trial.under_way()
        if alone and not self._stopped:
            self._exporter.stop()
            if len(self._exporter):
                return
            self._stopped = True
            log.info("stopped")
            self._loop.stop()

    # -- the number of workers -------------------------------------------------------------------

    def suspend_by_signal(self) -> None:
        """WINCH: as `suspend`, unless a terminal sent it because its window has changed."""
        if sent_by_terminal():
            log.debug("WINCH ignored: this process belongs to a terminal, which sends it")
        elif reason := self.suspend():
            log.warning("WINCH ignored: %s", reason)

    def suspend(self) -> str:
        """Drain all workers and wait; clients queue at the listeners until HUP or `resume`.

        Returns why not, or "".
        """
        if self._staff.stopping or self._reloads.in_progress():
            return "a start, reload or stop is in progress"
        self._staff.suspend()
        self._say()
        log.info("suspended: HUP resumes")
        self._notifier.status(self._reloads.status())
        return ""

    def resume(self) -> str:
        """Start the workers of the generation in force again; returns why not, or ""."""
        if not self._staff.suspended or self._staff.stopping or self._reloads.in_progress():
            return "not suspended"
        log.info("resumed")
        self._staff.resume()
        self._say()
        self._notifier.status(self._reloads.status())
        return ""

    # -- what the pool tells ---------------------------------------------------------------------

    def on_ready(self, worker: WorkerHandle) -> None:
        """A worker has booted."""
        self._commands.on_ready(worker)
        if not self._reloads.on_ready(worker) and worker.generation is self._generation:
            self._staff.on_ready(worker)

    def on_answer(self, worker: WorkerHandle, answer: AnyAnswer) -> None:
        """A worker answers what somebody asked over the control socket."""
        self._enquiries.on_answer(worker, answer)

    def on_gone(self, worker: WorkerHandle, before: State, how: str) -> None:
        """A worker has ended: as it was told to, or it is to be replaced."""
        if worker.killed_for:
            how = f"{how}: {worker.killed_for}"
        self._enquiries.on_gone(worker, how)
        expected = worker.dismissed or (before is State.DRAINING and how.endswith("status 0"))
        log.log(logging.INFO if expected else logging.WARNING, "%s %s", worker, how)
        if (
            not self._reloads.on_gone(worker, how)
            and worker.generation is self._generation
            and not worker.told_to_leave
        ):
            self._facts.restarted(restart_cause(worker, how))
            self._staff.on_death(worker)
        self._stop_when_alone()
        self._reloads.request_pending()

    # -- the rest --------------------------------------------------------------------------------

    def reopen_logs(self) -> None:
        """USR1: open the log file anew. The master does it for all: it may have the right to."""
        fd = logs.reopen()
        if fd is not None:
            self._pool.hand_log(fd)
            self._exporter.hand_log(fd)
            log.info("log file reopened")
        for path in sorted({each.access_log for each in self._generation.config.services}, key=str):
            if isinstance(path, str):
                self._reopen_access_log(path)

    def _reopen_access_log(self, path: str) -> None:
        """For all workers, also those that leave; the old file stays in use if it cannot be."""
        try:
            fd = open_file(path, "access_log")
        except EpolldError as error:
            log.error("access log not reopened, still using the old one: %s", error)
            return
        self._pool.hand_log(fd, path)
        os.close(fd)
        log.info("access log %s reopened", path)

    # -- upgrade in place --------------------------------------------------------------------------

    def upgrade(self, waiter: Waiter | None = None) -> None:
        """USR2: execute the program anew, in this process, after a trial run.

        `waiter` hears how it went; that it went well, from the new program.
        """
        if self._reloads.in_progress() or self._staff.stopping or self._trial.under_way():
            reason = "a start, reload, stop or upgrade is in progress"
            log.warning("upgrade refused: %s", reason)
            self._tell_of_upgrade(waiter, f"upgrade refused: {reason}")
            return
        try:
            self._trial.begin(
                self._origin, lambda code, said: self._on_trial_ended(waiter, code, said)
            )
        except OSError as error:
            log.error("upgrade failed: cannot run %s: %s", self._origin.program(), error)
            self._tell_of_upgrade(waiter, f"upgrade failed: {error}")
            return
        log.info("upgrade: trial run of %s", self._origin.program())

    def _on_trial_ended(self, waiter: Waiter | None, code: int, said: list[str]) -> None:
        """Go on with the upgrade, if the new program is fit for it."""
        self._stop_when_alone()
        if self._staff.stopping:
            self._tell_of_upgrade(waiter, "upgrade failed: told to stop meanwhile")
        elif code != 0:
            reason = f"the trial run ended with {code}: {' | '.join(said)}"
            log.error("upgrade failed: %s", reason)
            self._tell_of_upgrade(waiter, f"upgrade failed: {reason}", said)
        elif self._reloads.in_progress():
            log.warning("upgrade failed: a reload has begun meanwhile")
            self._tell_of_upgrade(waiter, "upgrade failed: a reload has begun meanwhile")
        else:
            self._execute()
            self._tell_of_upgrade(waiter, "upgrade failed: cannot execute the program")

    def _tell_of_upgrade(
        self, waiter: Waiter | None, message: str, problems: list[str] | None = None
    ) -> None:
        """There will be none: tell who asked for it."""
        if waiter is not None:
            waiter(self._reloads.outcome(False, message, problems=problems or [message]))

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
        self._notifier.ready(self._reloads.status())
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
            last_number=self._reloads.last_number,
            extra_workers=self._staff.extra,
            suspended=self._staff.suspended,
            listeners=[upgrade.save_listener(each) for each in self._generation.listeners],
            inherited=self._inherited.names(),
            workers=upgrade.save_workers(self._pool, self._loop.now),
            scoreboard=self._pool.scoreboard.fileno(),
            scoreboard_layout=self._pool.scoreboard.layout(),
            totals=totals.save(self._pool.scoreboard),
            said=totals.save_master(self._pool.scoreboard),
            clients=-1 if self._pool.clients is None else self._pool.clients.fileno(),
            clients_layout=[] if self._pool.clients is None else self._pool.clients.layout(),
            pidfile=self._pidfile.path,
            pidfile_fd=self._pidfile.fileno(),
            directory=self._origin.directory,
            control=upgrade.save_control(self._control, self._commands.changing()),
        )

    def _take_over(self, saved: SavedMaster) -> None:
        """Go on where the program before us stopped, and replace its workers by a reload."""
        self._staff.generation = self._first
        self._staff.extra = saved.extra_workers
        self._staff.suspended = saved.suspended
        self._reloads.last_number = saved.last_number
        upgrade.restore_workers(saved, self._pool, self._generation, self._loop.now)
        log.info(
            "upgraded from epolld %s to %s; %d workers are adopted",
            saved.version,
            __version__,
            len(self._pool),
        )
        self._facts.started()
        self._facts.upgraded()
        self._say()
        self._exporter.put_in_force(self._generation)
        self._pool.reap()
        waiters = [self._commands.await_outcome(each) for each in self._adopt_clients(saved)]
        if saved.suspended:
            self._notifier.ready(self._reloads.status())
            for waiter in waiters:
                waiter(self._reloads.outcome(True, "upgraded; still suspended"))
        else:
            for waiter in waiters:
                self._reloads.await_next(waiter)
            self._reloads.request()
        self._obey(saved.signals)

    def _adopt_clients(self, saved: SavedMaster) -> list[Session]:
        """Who asked the program before us for the upgrade."""
        clients = [] if saved.control is None else saved.control.clients
        return [self._control.adopt(client.fd, client.request_id) for client in clients]

    # -- looking after it all --------------------------------------------------------------------

    def _look(self) -> None:
        """Every second: the watchdog, and the line for `systemctl status`."""
        self._pool.look_for_stuck(self._loop.now)
        if not self._reloads.in_progress() and not self._staff.stopping:
            self._staff.look()
            self._say()
            self._notifier.status(self._reloads.status())
        self._loop.call_later(watchdog.LOOK, self._look)

    def _look_at_certificates(self) -> None:
        """Once a day, as at each start and reload: say which end soon."""
        for ending in self._generation.expiring():
            log.warning("%s", ending)
        self._loop.call_later(DAY, self._look_at_certificates)

    def _say(self) -> None:
        """Tell the exporter how it stands."""
        if self._staff.stopping:
            state = MasterState.STOPPING
        elif self._staff.suspended:
            state = MasterState.SUSPENDED
        else:
            state = MasterState.SERVING if self._generation.number else MasterState.STARTING
        wanted = self._staff.wanted(self._generation)
        self._facts.say(state, self._generation.number, wanted)
        if self._generation.config.metrics.bind and not self._staff.stopping:
            self._facts.look_at_listeners(self._generation.listeners)
            self._facts.say_certificates(self._generation.tls)

    def _feed_watchdog(self, interval: float) -> None:
        """Tell systemd that this loop turns."""
        self._notifier.watchdog()
        self._loop.call_later(interval, lambda: self._feed_watchdog(interval))

    def _close_in_child(self, assignment: Assignment) -> None:
        """In a child: close all that is the master's and that it does not need."""
        if self._pidfile is not None:
            self._pidfile.close()
        self._control.close_in_child()
        self._exporter.close_in_child()
        is_exporter = assignment.row < 0
        needed = {
            listener.sock
            for listener in assignment.generation.listeners
            if (listener.service.name == METRICS) is is_exporter
        }
        known = filter(None, (assignment.generation, self._generation, self._reloads.coming()))
        for each in known:
            for listener in each.listeners:
                if listener.sock not in needed:
                    listener.close()
        self._inherited.close_all_but(needed)
