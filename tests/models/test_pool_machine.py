"""The master under any order of deaths, signals, reloads and delays: it comes to what is wanted.

The real master, pool, staff and reloads; the processes, the kernel's part in them and the clock are
the test's. After each step: no slot has two workers that serve, one generation alone serves, no
more processes live than the design allows, a slot waits for its back-off, nobody has to leave or is
killed without a reason. When the disturbances end, there is what is configured and nothing else; a
reload works; and a stop leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from fake_processes import Kernel, Process, TurnedLoop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epolld import channel as words
from epolld.config import Loaded, loads
from epolld.errors import EpolldError
from epolld.host.children import Ended
from epolld.host.generation import Generation
from epolld.host.listeners import Inherited, open_listeners
from epolld.ledger import RESTART_WORD
from epolld.master import backoff, pool
from epolld.master.master import Master
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.master.reload import Outcome
from epolld.scoreboard import Column

STUCK, BOOT, GRACE = 4.0, 2.0, 3.0  # seconds, as configured
STEP = 0.25  # of the clock; the loops turn after each
CALM = 60.0  # seconds without a disturbance, within which all must be well
OLD = 2  # max_old_generations, at most
BUSY = 100  # connections, after which a worker is recycled

NAME = f"@epolld-model-{os.getpid()}-"
CONFIG = f"""
workers:
  count: {{count}}
  graceful_timeout: {GRACE}
  boot_timeout: {BOOT}
  stuck_timeout: {STUCK}
  max_old_generations: {{old}}
  recycle_connections: {BUSY}
services:
  - {{{{name: upper, bind: "unix:{NAME}{{place}}"}}}}
"""
TAKEN = "taken"  # a place where somebody else listens

exits = st.sampled_from([0, 1 << 8, 2 << 8, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
anyone = st.integers(0, 30)


@functools.cache
def configuration(count: int, old: int, place: str) -> Loaded:
    """A configuration, read once."""
    return loads(CONFIG.format(count=count, old=old, place=place), "model.yaml")


good = st.builds(configuration, st.integers(1, 3), st.integers(1, OLD), st.sampled_from("ab"))


def settle_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chance decides, and a reload does not set up the logging of this process."""
    monkeypatch.setattr("epolld.master.reload._configure_logs", lambda generation: None)
    monkeypatch.setattr("epolld.master.recycle.jitter", lambda chance: 1.0)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No log, of which this would be a long one."""
    settle_chance(monkeypatch)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Watched(Master):
    """Tells the model what happens, before it acts on it."""

    model: AnyDisturbance

    def on_gone(self, worker: WorkerHandle, before: State, how: str) -> None:
        self.model.note_end(worker)
        super().on_gone(worker, before, how)


class AnyDisturbance(RuleBasedStateMachine):
    """A master, its processes, and what happens to them."""

    # -- the world ---------------------------------------------------------------------------------

    @initialize(loaded=good, mortal=st.booleans(), booted=st.sampled_from([True, True, False]))
    def start(self, loaded: Loaded, mortal: bool, booted: bool) -> None:
        self.descriptors = _open_descriptors()
        self.stranger = socket.socket(socket.AF_UNIX)
        self.stranger.bind("\0" + NAME[1:] + TAKEN)
        self.stranger.listen()
        self.mortal = mortal  # it may be told to stop
        self.file: Loaded | None = loaded  # None: nonsense stands in it
        self.code_is_broken = False
        self.heard: list[Outcome] = []
        self.asked = 0  # for a reload, by somebody who waits for the outcome
        self.first: list[tuple[str, int]] = []  # how the first start went
        self.handle: dict[Process, WorkerHandle] = {}
        self.broken: set[Process] = set()  # cannot boot
        self.born: dict[Process, float] = {}
        self.ready_at: dict[Process, float] = {}
        self.hung_at: dict[Process, float] = {}
        self.warned_at: dict[Process, float] = {}  # told to leave, or to write its stacks
        self.excused: set[Process] = set()  # may be told to leave
        self.in_force: Generation | None = None
        self.failures: dict[int, int] = {}  # in a row, by slot of the generation in force
        self.not_before: dict[int, float] = {}  # when that slot may be filled again
        self.restarts = 0
        self.loop = TurnedLoop()
        self.kernel = Kernel()
        inherited = Inherited(())
        listeners = open_listeners(loaded.config.services, {}, inherited)
        first = Generation(1, loaded, listeners, None)
        self.master = Watched(
            self.read, first, inherited, lambda _: 0, lambda _: 0, self.loop, self.kernel
        )
        self.master.model = self
        self.master._on_started = lambda reason, code: self.first.append((reason, code))
        self.pool, self.staff = self.master._pool, self.master._staff
        self.pool.spawn = self.spawn  # type: ignore[method-assign]
        self.reloads = self.master._reloads
        self.reloads.start(first)
        self.master._look()
        self.turn()
        if booted:
            self.all_boot()

    def read(self) -> Loaded:
        """As the master reads its file."""
        if self.file is None:
            raise EpolldError("model.yaml:1:1: nonsense")
        return self.file

    def turn(self) -> None:
        """Who lives and does not hang hears and beats; then the master's loop turns. A few times,
        since what one says has an answer."""
        beats = self.pool.scoreboard.column(Column.HEARTBEAT)
        for _ in range(3):
            for process in self.kernel.alive():
                process.hear()
                if process.was_told(words.Drain, words.Stop):
                    self.warned_at.setdefault(process, self.loop.hands)
                if not process.hung and process in self.ready_at:
                    beats[self.handle[process].row] = int(self.loop.hands * 1e9)
            self.loop.turn()

    def take_note_of_swap(self) -> None:
        """Another generation has come into force, all of it; its back-offs are its own."""
        if self.staff.generation is not self.in_force:
            self.in_force = self.staff.generation
            if not self.staff.stopping:
                for process, handle in self.handle.items():
                    assert handle.generation is not self.in_force or process in self.ready_at
            self.failures.clear()
            self.not_before.clear()

    def spawn(self, slot: int, generation: Generation) -> WorkerHandle:
        """As the pool's: the slot must have waited for its back-off."""
        self.take_note_of_swap()
        if generation is self.in_force:
            assert self.loop.hands >= self.not_before.get(slot, 0.0) - 1e-6, "too early"
        try:
            handle = Pool.spawn(self.pool, slot, generation)
        except OSError:
            if generation is self.in_force:
                self.note_failure(slot)
            raise
        process = self.kernel.all[-1]
        self.handle[process] = handle
        self.born[process] = self.loop.hands
        process.on_signal = lambda number: self.note_signal(process, number)
        if self.code_is_broken:
            self.broken.add(process)
        return handle

    def note_failure(self, slot: int) -> None:
        """No worker in the slot, or none of use: the next one waits."""
        failures = self.failures.get(slot, 0)
        delay = min(backoff.LAST, backoff.FIRST * 2.0**failures)
        self.failures[slot] = failures + 1
        self.not_before[slot] = self.loop.hands + delay

    def note_end(self, worker: WorkerHandle) -> None:
        """The master hears that a worker has ended; does it need another?"""
        self.take_note_of_swap()
        (process,) = (each for each, handle in self.handle.items() if handle is worker)
        if (
            worker.generation is not self.in_force
            or worker.dismissed
            or process.was_told(words.Drain, words.Stop)
        ):
            return
        self.restarts += 1
        served = self.loop.hands - self.ready_at.get(process, self.loop.hands)
        if served > backoff.RIGHT_AFTER:
            self.failures[worker.slot] = 0
            self.not_before[worker.slot] = self.loop.hands
        else:
            self.note_failure(worker.slot)

    def note_signal(self, process: Process, number: int) -> None:
        """Nobody is killed who has done nothing wrong, nor without a warning."""
        handle, now = self.handle[process], self.loop.hands
        if number == signal.SIGABRT:
            assert now - self.hung_at[process] >= STUCK
            self.warned_at[process] = now
        elif handle.dismissed:
            assert not process.was_told(words.Serve), "it may have clients"
        elif process not in self.ready_at:
            assert now - self.born[process] >= BOOT
        else:
            assert now - self.warned_at[process] >= pool.KILL_AFTER_ABORT

    def pick(self, number: int, suits: Callable[[Process], object]) -> Process | None:
        """One of the living that suit."""
        found = [process for process in self.kernel.alive() if suits(process)]
        return found[number % len(found)] if found else None

    def boot(self, process: Process) -> None:
        """It becomes ready, or says why it cannot."""
        if process in self.broken:
            process.say(words.Failed("broken", 78))
            process.end(78 << 8)
        elif process not in self.ready_at:
            process.say(words.Ready())
            if self.handle[process].state is State.STARTING:
                self.ready_at[process] = self.loop.hands

    # -- what processes do -------------------------------------------------------------------------

    @rule(who=anyone)
    def boots(self, who: int) -> None:
        """In time or late; even when it is to leave already."""
        process = self.pick(who, lambda p: p not in self.ready_at and not p.hung)
        if process:
            self.boot(process)
        self.turn()

    @rule()
    def all_boot(self) -> None:
        for process in self.kernel.alive():
            if process not in self.ready_at and not process.hung:
                self.boot(process)
        self.turn()

    @rule(who=anyone, status=exits)
    def dies(self, who: int, status: int) -> None:
        process = self.pick(who, lambda p: not p.undying)
        if process:
            process.end(status)
        self.turn()

    @rule(status=exits)
    def all_die(self, status: int) -> None:
        for process in self.kernel.alive():
            process.end(status)
        self.turn()

    @rule(who=anyone, status=exits)
    def becomes_ready_and_dies(self, who: int, status: int) -> None:
        """The master hears both at once."""
        process = self.pick(who, lambda p: p not in self.ready_at and not p.hung)
        if process:
            self.boot(process)
            process.end(status)
        self.turn()

    @rule(who=anyone)
    def has_drained(self, who: int) -> None:
        process = self.pick(who, lambda p: p.leaving and not p.hung)
        if process:
            process.end(0)
        self.turn()

    @rule(who=anyone, stopped=st.booleans(), undying=st.booleans())
    def hangs(self, who: int, stopped: bool, undying: bool) -> None:
        process = self.pick(who, lambda p: not p.hung)
        if process:
            process.hung, process.stopped, process.undying = True, stopped, undying
            self.hung_at[process] = self.loop.hands
        self.turn()

    @rule(who=anyone)
    def recovers(self, who: int) -> None:
        process = self.pick(who, lambda p: p.hung)
        if process:
            process.hung = process.stopped = False
            process.wake()
        self.turn()

    @rule(who=anyone)
    def talks_nonsense(self, who: int) -> None:
        process = self.pick(who, lambda p: True)
        if process:
            process.say_garbage()
            process.say(words.Stop())
            if process in self.ready_at:
                process.say(words.Ready())
        self.turn()

    @rule(who=anyone, succeeded=st.booleans())
    def serves_many(self, who: int, succeeded: bool) -> None:
        """It is to be recycled; and its successor may come at once."""
        process = self.pick(who, lambda p: p in self.ready_at)
        if process:
            self.pool.scoreboard.column(Column.ACCEPTED)[self.handle[process].row] = BUSY
            self.excused.add(process)
        self.turn()
        if succeeded:
            self.all_sleep(1.2)
            self.all_boot()

    # -- what the machine does ---------------------------------------------------------------------

    @rule(steps=st.sampled_from([1, 2, 5, 20]))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.loop.hands += STEP
            self.turn()
            self.is_sound()

    @rule(seconds=st.sampled_from([1.2, 3.0, 30.0]))
    def all_sleep(self, seconds: float) -> None:
        """The master, too: stopped, or swapped out."""
        self.loop.hands += seconds
        self.turn()

    @rule(times=st.integers(1, 3))
    def no_process_can_be_had(self, times: int) -> None:
        self.kernel.refuse = times

    @rule()
    def a_strangers_orphan_ends(self) -> None:
        """As PID 1, the master gets it."""
        self.kernel.zombies.append(Ended(1, 0, 0.0))
        self.master._actions[signal.SIGCHLD]()
        self.turn()

    # -- what the operator does --------------------------------------------------------------------

    @rule(loaded=good | st.none() | st.just(configuration(2, 2, TAKEN)), broken=st.booleans())
    def edits(self, loaded: Loaded | None, broken: bool) -> None:
        """The configuration and the code."""
        self.file, self.code_is_broken = loaded, broken

    @rule()
    def hup(self) -> None:
        self.master._actions[signal.SIGHUP]()
        self.turn()

    @rule()
    def asks_for_reload(self) -> None:
        """Over the control socket, and waits."""
        self.asked += 1
        self.reloads.await_next(self.heard.append)
        self.reloads.request()
        self.turn()

    @rule(more=st.booleans())
    def changes_count(self, more: bool) -> None:
        before = self.staff.wanted(self.staff.generation)
        self.master._actions[signal.SIGTTIN if more else signal.SIGTTOU]()
        wanted = self.staff.wanted(self.staff.generation)
        assert wanted == (before + 1 if more else max(1, before - 1))
        self.turn()

    @rule()
    def suspends(self) -> None:
        """WINCH, or the command."""
        self.master.suspend()
        self.turn()

    @rule()
    def resumes(self) -> None:
        self.master.resume()
        self.turn()

    @precondition(lambda self: self.mortal)
    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGQUIT, signal.SIGINT]))
    def stops(self, number: int) -> None:
        self.master._actions[number]()
        self.turn()

    # -- what is always true -----------------------------------------------------------------------

    @invariant()
    def is_sound(self) -> None:
        self.take_note_of_swap()
        assert not self.loop.faults
        force, coming = self.staff.generation, self.reloads.coming()
        serving = Counter(
            (self.handle[process].generation, self.handle[process].slot)
            for process in self.kernel.alive()
            if process.serves()
        )
        assert all(count == 1 for count in serving.values()), "two serve in one slot"
        assert {generation for generation, _ in serving} <= {force}
        assert {each.pid for each in self.kernel.alive()} <= {each.pid for each in self.pool}
        wanted = self.staff.wanted(force)
        slots = Counter(each.slot for each in self.pool.of(force, State.STARTING, State.READY))
        assert max(slots.values(), default=0) <= 2, "a successor has a successor"
        assert sum(slots.values()) <= wanted + 1, "recycled one at a time"
        if self.staff.stopping or self.staff.suspended:
            assert not slots
        for worker in self.pool:
            if worker.generation not in (force, coming):
                assert worker.state in (State.DRAINING, State.KILLED)
        if coming is not None:
            there = Counter(worker.slot for worker in self.pool.of(coming, *State))
            assert max(there.values(), default=0) <= 1
        assert len({worker.generation for worker in self.pool}) <= OLD + 1
        self.nobody_leaves_without_reason()
        words_of_master = self.pool.scoreboard.master
        assert (
            sum(words_of_master[word] for word in RESTART_WORD.values())
            == self.restarts + (self.pool.scoreboard.master[RESTART_WORD["recycled"]])
        )

    def nobody_leaves_without_reason(self) -> None:
        """Of the generation in force, and of those that beat and boot in time."""
        force = self.staff.generation
        for process, handle in self.handle.items():
            if process.ended:
                continue
            if handle.generation is force:
                if (
                    handle.slot >= self.staff.wanted(force)
                    or self.staff.suspended
                    or self.staff.stopping
                ):
                    self.excused.add(process)
                elif process.was_told(words.Drain, words.Stop) or handle.dismissed:
                    assert process in self.excused, f"{process} had to leave"

    # -- the end -----------------------------------------------------------------------------------

    def calm(self, well: Callable[[], bool]) -> None:
        """Nobody disturbs; those who hang still do. In the end it must be well, and stay so."""
        self.kernel.refuse = 0
        self.code_is_broken = False
        for process in self.kernel.alive():
            if process.undying:
                process.wake()
        steps, good = 0, 0
        while good < 8:
            assert steps < CALM / STEP, "does not converge"
            for process in self.kernel.alive():
                if process.hung:
                    continue
                if process.leaving:
                    process.end(0)
                else:
                    self.boot(process)
            self.loop.hands += STEP
            steps += 1
            self.turn()
            self.is_sound()
            good = good + 1 if well() else 0

    def is_as_configured(self) -> bool:
        """In each slot one that serves, and nobody else; of a suspended one, nobody at all."""
        wanted = 0 if self.staff.suspended else self.staff.wanted(self.staff.generation)
        serving = sorted(self.handle[each].slot for each in self.kernel.alive() if each.serves())
        return (
            serving == list(range(wanted))
            and len(self.pool) == wanted
            and not any(process.hung for process in self.kernel.alive())
            and not self.reloads.in_progress()
        )

    def has_stopped(self) -> bool:
        return self.loop.told_to_stop and not len(self.pool)

    def teardown(self) -> None:
        if not hasattr(self, "reloads"):
            return
        try:
            self.all_ends_well()
        finally:  # a failure in one example shall not make the next one fail
            for generation in filter(None, (self.staff.generation, self.reloads.coming())):
                for listener in generation.listeners:
                    listener.remove()
            self.stranger.close()
            self.loop.close()
        left = _open_descriptors() - self.descriptors
        assert not left, f"left open: {sorted(left)}"

    def all_ends_well(self) -> None:
        if not self.staff.stopping:
            self.calm(lambda: self.staff.stopping or self.is_as_configured())
        if not self.staff.stopping:
            self.a_reload_works()
            self.master.stop_gracefully()
        self.calm(self.has_stopped)
        assert len(self.first) == 1
        assert len(self.heard) == self.asked
        assert not self.loop.watchers()
        assert not self.pool.scoreboard.used_rows()

    def a_reload_works(self) -> None:
        """Whatever was before."""
        self.file = configuration(2, 2, "a")
        self.asks_for_reload()
        self.calm(self.is_as_configured)
        assert self.heard[-1].ok
        assert self.staff.generation.loaded is self.file
        assert _listens("a")
        assert not _listens("b")


def _open_descriptors() -> set[tuple[str, str]]:
    """Number and file of each, but for scoreboards: these go with their last view."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return {each for each in found if "scoreboard" not in each[1]}


def _listens(place: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex("\0" + NAME[1:] + place) == 0


@pytest.mark.timeout(300)  # only to make a failure small takes so long
class TestAnyDisturbance(AnyDisturbance.TestCase):
    settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.long
@pytest.mark.timeout(600)
class TestManyDisturbances(AnyDisturbance.TestCase):
    settings = settings(max_examples=500, stateful_step_count=60, deadline=None)
