"""What the daemon looks like over time: sampled from its control socket and /proc, in a thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from control import Control
from harness import Daemon
from processes import descriptors

EVERY = 0.5  # seconds


@dataclass
class Sample:
    """One look; of the workers it is the sum, but for `lag`."""

    time: float
    connections: int = 0
    workers: int = 0
    worker_memory: int = 0  # bytes
    master_memory: int = 0
    worker_descriptors: int = 0
    master_descriptors: int = 0
    lag: float = 0.0  # seconds: the most that a worker's loop is late now


@dataclass
class Record:
    """All samples of a run."""

    running: Daemon
    samples: list[Sample] = field(default_factory=list)
    missed: int = 0  # looks at a moment when the program was being executed anew

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY):
            try:
                self.samples.append(self._look())
            except (OSError, AssertionError, ValueError):
                self.missed += 1

    def _look(self) -> Sample:
        control = Control(self.running, timeout=5)
        try:
            status, workers = control.ask("status"), control.ask("workers")
        finally:
            control.close()
        pid = self.running.pid
        sample = Sample(time.monotonic(), status["connections"], len(workers))
        sample.master_memory = status["memory"]
        sample.master_descriptors = len(descriptors(pid))
        for worker in workers:
            sample.worker_memory += worker.get("memory", 0)
            sample.lag = max(sample.lag, worker["lag"])
            try:
                sample.worker_descriptors += len(descriptors(worker["pid"]))
            except FileNotFoundError:
                continue
        return sample
