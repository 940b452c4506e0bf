"""The pid file from a start to the end, and what a start finds there."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from harness import Config, Daemon
from processes import descriptors

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_it_holds_the_masters_pid_and_goes_with_it(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    pidfile = running.runtime / "epolld.pid"
    assert pidfile.read_text() == f"{running.pid}\n"
    assert pidfile.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in running.runtime.iterdir()} == {"epolld.pid", "control.sock"}
    running.stop()
    assert not pidfile.exists()


def test_a_stale_one_is_replaced(make_daemon: Callable[[Config], Daemon]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    made = make_daemon({})
    made.runtime.mkdir(mode=0o750)
    pidfile = made.runtime / "epolld.pid"
    for content in (f"{dead.pid}\n", "", f"{os.getpid()}\n"):  # the last: of a living stranger
        pidfile.write_text(content)
        other = make_daemon({"master": {"runtime_directory": str(made.runtime)}}).start()
        assert pidfile.read_text() == f"{other.pid}\n"
        other.stop()
        assert not pidfile.exists()


def test_of_a_running_daemon_it_is_refused(daemon: Callable[..., Daemon], run: Run) -> None:
    running = daemon()
    done = run("--config", str(running.config_file))
    assert done.returncode == 75
    assert f"already running as process {running.pid}" in done.stderr
    assert (running.runtime / "epolld.pid").read_text() == f"{running.pid}\n"
    assert running.client().ask(b"a") == b"A"


def test_no_worker_holds_its_lock(daemon: Callable[..., Daemon]) -> None:
    """Else it would seem to run while an old worker lives."""
    running = daemon()
    for worker in running.workers():
        assert not any("epolld.pid" in what for what in descriptors(worker.pid).values())
    running.reload()
    for worker in running.wait_workers(2, generation=2):
        assert not any("epolld.pid" in what for what in descriptors(worker.pid).values())


def test_somebody_elses_file_stays_at_the_end(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    pidfile = running.runtime / "epolld.pid"
    pidfile.unlink()
    pidfile.write_text("1\n")
    running.stop(signal.SIGINT)
    assert pidfile.read_text() == "1\n"
    pidfile.unlink()
