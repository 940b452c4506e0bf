"""master/trial.py: the trial run is ended in time, and what it prints is read."""

import os
import select
import signal
from collections.abc import Callable

import pytest

from epolld.master import trial
from epolld.master.upgrade import Origin
from epolld.net.loop import EventLoop


def test_a_trial_that_cannot_start() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No such file"):
        trial.start("epolld.yaml", "/nowhere/at/all")
    assert set(os.listdir("/proc/self/fd")) == before


class FakePool:
    """Remembers whom it is to wait for."""

    def expect(self, pid: int, on_exit: Callable[[int], object]) -> None:
        self.pid, self.on_exit = pid, on_exit


def test_a_trial_that_takes_too_long_is_ended_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_config: str, _directory: str) -> tuple[int, int]:
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setpgroup=0)
        return pid, os.memfd_create("test")

    monkeypatch.setattr(trial, "start", start)
    monkeypatch.setattr(trial, "TIMEOUT", 0.01)
    loop, pool = EventLoop(), FakePool()
    trying = trial.Trial(loop, pool)  # type: ignore[arg-type]
    outcome: list[tuple[int, list[str]]] = []
    trying.begin(Origin("", "", {}, None), lambda *facts: outcome.append(facts))
    assert trying.under_way()
    pidfd = os.pidfd_open(pool.pid)
    loop.register(pidfd, select.EPOLLIN, lambda _events: loop.stop())
    loop.run()
    pool.on_exit(os.waitpid(pool.pid, 0)[1])
    assert outcome == [(-signal.SIGKILL, ["it took longer than 0.01s"])]
    assert not trying.under_way()
    os.close(pidfd)
    loop.close()


def test_what_a_trial_prints_is_read_line_by_line() -> None:
    fd = os.memfd_create("test")
    os.write(fd, b"first\nsecond \xff\n")
    assert trial.read(fd) == ["first", "second �"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
