"""What each command of the control socket does. The table of them is `Commands._actions`.

A command answers at once or when what it began is over; the master goes on meanwhile. Refuses to
know bytes and sockets (control.py) and what a request looks like (requests.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from epolld import __version__
from epolld import channel as words
from epolld import config as configs
from epolld import log as logs
from epolld.master import overview, requests
from epolld.master.control import Session
from epolld.master.enquiry import Enquiries, Enquiry, Missing
from epolld.master.pool import Pool, WorkerHandle
from epolld.master.reload import Outcome, Reloads, Waiter
from epolld.master.staff import Staff
from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.control")

STOPPING = "the daemon is stopping"
NO_STACKS = "{reason}; it is stuck, and was told to write its stacks into the log"


class Actions(Protocol):
    """What the master can do; a reason is why it does not, "" if it does."""

    def upgrade(self, waiter: Waiter | None = None) -> None:
        """Execute the program anew; `waiter` hears how it went."""

    def stop_gracefully(self) -> None:
        """Drain and leave; a second time: leave at once."""

    def stop_fast(self) -> None:
        """Leave at once."""

    def suspend(self) -> str:
        """Retire all workers; returns a reason."""

    def resume(self) -> str:
        """Start workers again; returns a reason."""

    def reopen_logs(self) -> None:
        """Open the log file anew."""


class Commands:
    """Obeys the clients of the control socket."""

    def __init__(
        self,
        loop: EventLoop,
        pool: Pool,
        staff: Staff,
        reloads: Reloads,
        enquiries: Enquiries,
        master: Actions,
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._staff = staff
        self._reloads = reloads
        self._enquiries = enquiries
        self._master = master
        self._level = ""  # set by an operator, for the generation that was in force then
        self._level_for = 0
        self._changing: set[Session] = set()  # who wait for the outcome of a reload or upgrade
        self._actions: dict[type, Callable[[Session, Any], object]] = {
            requests.Status: lambda session, _: session.answer(self.status()),
            requests.Workers: lambda session, _: session.answer(self.workers()),
            requests.Services: lambda session, _: session.answer(self.services()),
            requests.Connections: self._connections,
            requests.Kill: self._kill,
            requests.Reload: self._reload,
            requests.Upgrade: self._upgrade,
            requests.Stop: self._stop,
            requests.Suspend: lambda session, _: self._do(session, self._master.suspend()),
            requests.Resume: lambda session, _: self._do(session, self._master.resume()),
            requests.Scale: self._scale,
            requests.LogLevel: self._log_level,
            requests.ReopenLogs: self._reopen_logs,
            requests.Dump: self._dump,
            requests.ShowConfig: self._config,
            requests.Watch: self._watch,
        }

    def handle(self, session: Session, line: bytes) -> None:
        """Obey one line of a client."""
        try:
            request = requests.parse(line)
        except ValueError as error:
            session.fail("bad_request", str(error))
            return
        session.request_id = request.id
        command = type(request).__struct_config__.tag
        if command not in QUIET:
            log.info("control: %s, by %s", command, session.peer)
        self._actions[type(request)](session, request)

    # -- what the master tells -----------------------------------------------------------------

    def on_ready(self, worker: WorkerHandle) -> None:
        """A new worker logs as the others do."""
        if self._level and worker.generation.number == self._level_for:
            worker.channel.send(words.SetLogLevel(self._level))

    def changing(self) -> Iterable[Session]:
        """Who wait for the outcome of a reload or upgrade: they outlive an upgrade."""
        return [session for session in self._changing if not session.is_gone()]

    def await_outcome(self, session: Session) -> Waiter:
        """What tells a client how the change went that it asked for."""
        self._changing.add(session)
        session.on_gone = lambda: self._changing.discard(session)

        def tell(outcome: Outcome) -> None:
            self._changing.discard(session)
            if session.is_gone():
                return
            if outcome.ok:
                session.answer(
                    {
                        "generation": outcome.generation,
                        "workers": outcome.workers,
                        "version": __version__,
                        "changes": outcome.changes,
                        "warnings": outcome.warnings,
                    }
                )
            else:
                session.fail(
                    "failed",
                    outcome.message,
                    generation=outcome.generation,
                    problems=outcome.problems,
                    exit_code=outcome.exit_code,
                )

        return tell

    # -- looking -------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How it stands as a whole."""
        generation, staff = self._staff.generation, self._staff
        last = self._reloads.last
        return {
            "protocol": requests.PROTOCOL,
            **overview.master_facts(),
            "state": self._state(),
            **overview.generation_facts(generation, staff.wanted(generation)),
            "workers_ready": overview.ready_workers(self._pool, generation),
            "generations_leaving": staff.leaving(),
            "connections": overview.connections(self._pool),
            "log_level": logs.level(),
            "config": generation.loaded.file,
            "last_reload": None
            if last is None
            else {
                "ok": last.ok,
                "seconds_ago": round(self._loop.now - self._reloads.last_at, 1),
                "message": last.message,
            },
        }

    def workers(self) -> list[dict[str, Any]]:
        """Every worker process, by slot, the newest generation first."""
        handles = sorted(self._pool, key=lambda w: (-w.generation.number, w.slot, w.pid))
        return [overview.worker_facts(self._pool, each, self._loop.now) for each in handles]

    def services(self) -> list[dict[str, Any]]:
        """What is served, and where."""
        return overview.service_facts(self._pool, self._staff.generation)

    def _state(self) -> str:
        if self._staff.stopping:
            return "stopping"
        if self._staff.generation.number == 0:
            return "starting"
        if self._reloads.in_progress():
            return "reloading"
        return "suspended" if self._staff.suspended else "serving"

    def _config(self, session: Session, _request: requests.ShowConfig) -> None:
        generation = self._staff.generation
        text = configs.render(configs.hide_secrets(generation.config))
        session.answer(
            {"generation": generation.number, "file": generation.loaded.file, "yaml": text}
        )

    def _watch(self, session: Session, request: requests.Watch) -> None:
        """Tell again and again; a client that does not keep up misses some."""

        def tell() -> None:
            if session.is_gone():
                return
            if session.has_room():
                now = time.clock_gettime(time.CLOCK_MONOTONIC)
                session.more({"time": now, "status": self.status(), "workers": self.workers()})
            self._loop.call_later(request.interval, tell)

        tell()

    # -- connections and stacks: the workers are asked -----------------------------------------

    def _connections(self, session: Session, request: requests.Connections) -> None:
        self._walk(session, request, kill=False)

    def _kill(self, session: Session, request: requests.Kill) -> None:
        chosen = (request.ids, request.service, request.peers, request.idle)
        if not any(chosen) and request.worker is None and not request.all:
            session.fail("bad_request", "say which connections, or `all`")
            return
        self._walk(session, request, kill=True)

    def _walk(self, session: Session, request: requests.Selection, kill: bool) -> None:
        """Have the workers go through their connections, and pass on what they find."""
        if trouble := _trouble_with(request.peers):
            session.fail("bad_request", trouble)
            return
        selection = words.Selection(
            [int(each) for each in request.ids], request.service, request.peers, request.idle
        )
        if request.service and request.service not in self._known_services():
            session.fail("bad_request", f"there is no service {request.service!r}")
            return
        count = 0

        def found(_worker: WorkerHandle, answer: words.AnyAnswer) -> None:
            nonlocal count
            if isinstance(answer, words.Walked) and answer.count:
                count += answer.count
                session.more_raw(bytes(answer.connections))

        def over(missing: list[Missing]) -> None:
            session.answer({"count": count, "missing": missing})

        workers = [w for w in self._pool if request.worker in (None, w.slot)]
        enquiry = self._enquiries.ask(
            lambda number: words.WalkConnections(number, selection, kill),
            workers,
            found,
            over,
            session.has_room,
        )
        self._follow(session, enquiry)

    def _known_services(self) -> set[str]:
        """By name, those that only older generations have included."""
        generations = [self._staff.generation, *(worker.generation for worker in self._pool)]
        return {service.name for each in generations for service in each.config.services}

    def _dump(self, session: Session, _request: requests.Dump) -> None:
        """The stacks of each worker, or that it does not answer."""

        def told(worker: WorkerHandle, answer: words.AnyAnswer) -> None:
            if isinstance(answer, words.Stacks):
                session.more([{**_name(worker), "stacks": answer.text}])

        def over(missing: list[Missing]) -> None:
            silent = {each.pid for each in missing}
            for worker in self._pool:
                if worker.pid in silent:
                    worker.child.send_signal(words.DUMP)
            stuck = [
                {**_fields(each), "reason": NO_STACKS.format(reason=each.reason)}
                for each in missing
            ]
            session.answer({"missing": stuck})

        enquiry = self._enquiries.ask(words.DumpStacks, self._pool, told, over)
        self._follow(session, enquiry)

    def _follow(self, session: Session, enquiry: Enquiry) -> None:
        session.on_room = enquiry.resume
        session.on_gone = enquiry.cancel

    # -- changing ------------------------------------------------------------------------------

    def _reload(self, session: Session, _request: requests.Reload) -> None:
        if self._staff.stopping:
            session.fail("refused", STOPPING)
        else:
            self._reloads.await_next(self.await_outcome(session))
            self._reloads.request()

    def _upgrade(self, session: Session, _request: requests.Upgrade) -> None:
        self._master.upgrade(self.await_outcome(session))

    def _stop(self, session: Session, request: requests.Stop) -> None:
        """The client hears the end of the daemon as the end of its connection."""
        session.more({"state": "stopping"})
        if request.fast:
            self._master.stop_fast()
        else:
            self._master.stop_gracefully()

    def _scale(self, session: Session, request: requests.Scale) -> None:
        generation = self._staff.generation
        if self._staff.stopping or generation.number == 0:
            session.fail("refused", STOPPING if self._staff.stopping else "not started yet")
            return
        self._staff.change_count(request.workers - self._staff.wanted(generation))
        session.answer({"workers_wanted": self._staff.wanted(generation)})

    def _log_level(self, session: Session, request: requests.LogLevel) -> None:
        self._level, self._level_for = request.level, self._staff.generation.number
        logs.set_level(request.level)
        for worker in self._pool:
            worker.channel.send(words.SetLogLevel(request.level))
        session.answer({"log_level": request.level})

    def _reopen_logs(self, session: Session, _request: requests.ReopenLogs) -> None:
        self._master.reopen_logs()
        session.answer({})

    def _do(self, session: Session, reason: str) -> None:
        """Answer to what was done, or not done for a reason."""
        if reason:
            session.fail("refused", reason)
        else:
            session.answer({"state": self._state()})


# Commands that change nothing are not worth a line in the log.
QUIET = {"status", "workers", "services", "connections", "config", "watch", "dump"}


def _trouble_with(networks: list[str]) -> str:
    """Which of them is no address and no network; "" if all are."""
    if networks:
        import ipaddress  # half a megabyte, which every worker would have, too

        for text in networks:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                return f"peers: {error}"
    return ""


def _name(worker: WorkerHandle) -> dict[str, Any]:
    return {"worker": worker.slot, "pid": worker.pid, "generation": worker.generation.number}


def _fields(missing: Missing) -> dict[str, Any]:
    return {"worker": missing.worker, "pid": missing.pid, "reason": missing.reason}
