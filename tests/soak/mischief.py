"""What is done to the daemon during a soak: at random, but the same for the same seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from harness import Daemon


class Mischief:
    """Does one thing after the other; `kills` says when which worker was killed, by pid."""

    def __init__(self, running: Daemon, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.kills: dict[int, float] = {}
        self.marks: list[tuple[float, str]] = []  # for the picture
        self._running = running
        self._chance = random.Random(seed)
        self._good = running.config_file.read_text()
        self._actions: list[tuple[int, str, Callable[[], None]]] = [
            (40, "reload", lambda: self._signal(signal.SIGHUP)),
            (20, "kill", self._kill),
            (12, "upgrade", lambda: self._signal(signal.SIGUSR2)),
            (8, "more and less", self._more_and_less),
            (8, "bad reload", self._bad_reload),
            (6, "stop a worker for a while", self._stop_a_worker),
            (6, "reopen logs", lambda: self._signal(signal.SIGUSR1)),
        ]

    def until(self, end: float) -> None:
        """Go on until this time of the monotonic clock."""
        weights = [weight for weight, _, _ in self._actions]
        while time.monotonic() < end:
            _, name, act = self._chance.choices(self._actions, weights)[0]
            self.marks.append((time.monotonic(), name))
            self.done[name] += 1
            act()
            time.sleep(self._chance.uniform(0.2, 1.5))

    def _signal(self, number: int) -> None:
        os.kill(self._running.pid, number)

    def _victim(self) -> int:
        workers = self._running.workers()
        return self._chance.choice(workers).pid if workers else 0

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if pid := self._victim():
                self.kills[pid] = time.monotonic()
                os.kill(pid, signal.SIGKILL)

    def _stop_a_worker(self) -> None:
        with suppress(ProcessLookupError):
            if pid := self._victim():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.5)
                os.kill(pid, signal.SIGCONT)

    def _more_and_less(self) -> None:
        self._signal(signal.SIGTTIN)
        time.sleep(1)
        self._signal(signal.SIGTTOU)

    def _bad_reload(self) -> None:
        self._running.write_text("services: [")
        self._signal(signal.SIGHUP)
        time.sleep(0.3)
        self._running.write_text(self._good)
