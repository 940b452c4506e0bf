"""How many workers there are, and which: the generation in force has as many as are wanted.

Starts what lacks, replaces what died or has served long enough, has leave what is too many, and
evens out what they hold. Knows no signals, no configuration files and no sockets; it is told
which generation is in force.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from epolld import config as configs
from epolld.config import worker_count
from epolld.host.generation import Generation
from epolld.master.backoff import Backoff
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.master.rebalance import next_move
from epolld.master.recycle import reason_to_recycle
from epolld.net.loop import EventLoop
from epolld.net.timers import Timer
from epolld.scoreboard import Column

log = logging.getLogger("epolld.master")


class Staff:
    """The workers of the generation in force, and those that leave."""

    def __init__(self, loop: EventLoop, pool: Pool, generation: Generation) -> None:
        self.generation = generation  # in force; number 0 before there is any
        self.extra = 0  # workers wanted beyond the configured number: TTIN less TTOU
        self.suspended = False  # all have left, and none is wanted for now
        self.stopping = False  # all are leaving, for good
        self.on_recycle: Callable[[], object] = lambda: None
        self._loop = loop
        self._pool = pool
        self._backoffs: dict[int, Backoff] = {}  # by slot
        self._waiting: dict[int, Timer] = {}  # slots that wait for their back-off

    def wanted(self, generation: Generation) -> int:
        """How many workers a generation is to have; at least one."""
        return max(1, worker_count(generation.config.workers) + self.extra)

    def change_count(self, step: int) -> None:
        """Want more or fewer; never fewer than one."""
        wanted = max(1, self.wanted(self.generation) + step)
        self.extra = wanted - worker_count(self.generation.config.workers)
        log.info("workers wanted: %d", self.wanted(self.generation))
        self.converge()

    def put_in_force(self, generation: Generation) -> None:
        """Have a new generation serve and all older ones leave: new before old."""
        self.generation = generation
        self.suspended = False
        self._backoffs.clear()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        for worker in self._pool.of(generation, State.READY):
            self._pool.serve(worker)
        for worker in self._pool:
            if worker.generation is not generation:
                self.retire(worker)
        self.converge()

    def suspend(self) -> None:
        """Have all leave, and wait; their connections are not given to anybody."""
        self.suspended = True
        for worker in self._pool.of(self.generation, State.STARTING, State.READY):
            self._pool.drain(worker)

    def resume(self) -> None:
        """Have workers serve again."""
        self.suspended = False
        self.converge()

    def stop(self) -> None:
        """Have all leave for good."""
        self.stopping = True
        for worker in self._pool:
            self._pool.drain(worker)

    def stop_now(self) -> None:
        """Have all leave at once."""
        self.stopping = True
        for worker in self._pool:
            self._pool.stop(worker)

    def retire(self, worker: WorkerHandle) -> None:
        """Have a worker leave and give its connections to those in force."""
        heirs = [w for w in self._pool.of(self.generation, State.READY) if w is not worker]
        old, new = worker.generation.config, self.generation.config
        self._pool.drain(worker, heirs, configs.movable_services(old, new))

    def converge(self) -> None:
        """Start the workers that lack, retire those too many."""
        if self.stopping or self.suspended or self.generation.number == 0:
            return
        wanted = self.wanted(self.generation)
        there = self._pool.of(self.generation, State.STARTING, State.READY)
        for worker in there:
            if worker.slot >= wanted:
                self.retire(worker)
        for slot in set(range(wanted)) - {worker.slot for worker in there} - set(self._waiting):
            self._start(slot)

    def on_ready(self, worker: WorkerHandle) -> None:
        """A worker has booted that was started one by one: let it serve, and who waited for it
        leave."""
        self._pool.serve(worker)
        log.info("%s is ready", worker)
        if self.suspended or self.stopping:
            return
        for other in self._pool:
            recycled = (
                other is not worker
                and other.slot == worker.slot
                and other.generation is worker.generation
                and other.state is State.READY
            )
            if recycled or other.state is State.DRAINING:  # which may have lost its heirs
                self.retire(other)

    def on_death(self, worker: WorkerHandle) -> None:
        """A worker in force has ended without being told to: replace it."""
        if self.stopping:
            return
        if worker.failure is not None:
            log.error("%s cannot boot: %s", worker, worker.failure.reason)
        served = None if worker.ready_at is None else self._loop.now - worker.ready_at
        delay = self._start_later(worker.slot, served)
        if delay:
            log.warning("worker %d: next try in %gs", worker.slot, delay)

    def look(self) -> None:
        """Once a second: recycle and rebalance."""
        if not self.stopping and not self.suspended:
            self._recycle()
            self._rebalance()

    def leaving(self) -> int:
        """How many older generations still have workers."""
        return len({w.generation.number for w in self._pool if w.generation is not self.generation})

    def describe(self) -> str:
        """For the status line."""
        live = sum(self._pool.scoreboard.column(Column.LIVE))
        ready = len(self._pool.of(self.generation, State.READY))
        state = ", suspended" if self.suspended else ""
        return f"generation {self.generation.number}, {ready} workers, {live} connections{state}"

    def _start(self, slot: int) -> None:
        try:
            self._pool.spawn(slot, self.generation)
        except (OSError, OverflowError) as error:
            log.error("cannot start worker %d: %s", slot, error)
            self._start_later(slot, served=None)

    def _start_later(self, slot: int, served: float | None) -> float:
        """Start `slot` again after its back-off; returns that, in seconds."""
        delay = self._backoffs.setdefault(slot, Backoff()).on_death(served)

        def due() -> None:
            del self._waiting[slot]
            self.converge()

        if slot in self._waiting:  # a worker that was recycled, and its successor
            self._waiting[slot].cancel()
        self._waiting[slot] = self._loop.call_later(delay, due)
        return delay

    def _recycle(self) -> None:
        """Replace a worker that has served long enough, one at a time, its successor first."""
        workers = self._pool.of(self.generation, State.STARTING, State.READY)
        if len(workers) != len({worker.slot for worker in workers}) or self._waiting:
            return  # a successor is on its way, or starting workers fails
        limits = self.generation.config.workers
        for worker in workers:
            facts = self._pool.facts(worker, self._loop.now)
            reason = reason_to_recycle(facts, limits, worker.jitter)
            if reason and worker.state is State.READY:
                log.info("%s %s: recycling it", worker, reason)
                self.on_recycle()
                self._start(worker.slot)
                return

    def _rebalance(self) -> None:
        """Even out the live connections, if that is wanted."""
        if not self.generation.config.workers.rebalance:
            return
        live = self._pool.scoreboard.column(Column.LIVE)
        workers = self._pool.of(self.generation, State.READY)
        move = next_move({worker: live[worker.row] for worker in workers})
        if move is not None:
            fullest, emptiest, count = move
            log.debug("%s gives %d connections to %s", fullest, count, emptiest)
            self._pool.share(fullest, count, emptiest)
