"""What the examples with several processes share: workers forked before the first connection."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def forked(count: int, work: Callable[[int], object]) -> Iterator[list[int]]:
    """Their PIDs, in the order in which they began to wait; killed on leaving."""
    pids = []
    try:
        for number in range(count):
            if (pid := os.fork()) == 0:
                with contextlib.suppress(KeyboardInterrupt):
                    work(number)
                os._exit(0)
            pids.append(pid)
            wait_until_asleep(pid)  # so the order among the waiters is this order
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def wait_until_asleep(*pids: int) -> None:
    """Return when each of them sleeps in the kernel (or has ended)."""
    for pid in pids:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "SZ":
            os.sched_yield()
