"""A change of generation as a transaction: the new one is ready, or nothing has changed.

    starting → done      all new workers are ready: they serve, the old ones drain
             ↘ failed    one cannot boot: the new ones go, the old ones never noticed

The first start is the same with no old generation. Who begins it has validated the
configuration and bound the addresses; who listens to `on_done` and `on_failed` says what follows.
"""

from __future__ import annotations

from collections.abc import Callable

from epolld.host.generation import Generation
from epolld.master.pool import Pool, State, WorkerHandle


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
