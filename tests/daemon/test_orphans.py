"""As PID 1 of a container, the daemon gets other processes' orphans: it reaps them, no more."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import needs
from harness import HERE, Config, Daemon
from processes import eventually

# A child that leaves a grandchild behind, which then ends. Its output is its pid.
ORPHAN = "import os; pid = os.fork(); pid and (print(pid, flush=True), os._exit(0)); os._exit(7)"


def test_orphans_of_a_subreaper_are_reaped(make_daemon: Callable[[Config], Daemon]) -> None:
    """A worker's child leaves a grandchild: it becomes the master's, who is the next subreaper."""
    made = make_daemon(
        {
            "services": [{"name": "t", "protocol": "orphans:Orphans", "bind": "127.0.0.1:0"}],
            "logging": {"level": "debug"},
        }
    )
    made.command = [sys.executable, str(HERE / "as_subreaper.py"), *made.command]
    made.write_module(
        "orphans",
        "import subprocess, sys\n"
        "from epolld import Protocol\n"
        "class Orphans(Protocol):\n"
        "    def connection_made(self, transport):\n"
        f"        code = {ORPHAN!r}\n"
        "        made = subprocess.run([sys.executable, '-c', code], capture_output=True)\n"
        "        transport.write(made.stdout)\n",
    )
    made.start()
    workers = made.wait_workers(2)
    for _ in range(3):
        orphan = int(made.client(made.address("t")).line())
        made.wait_log(rf"reaped process {orphan}, which is no")
        eventually(lambda orphan=orphan: not Path(f"/proc/{orphan}").exists(), 3)
    assert made.workers() == workers


def test_as_pid_1(make_daemon: Callable[[Config], Daemon]) -> None:
    """Signals work without a default action behind them, and nobody is left in the namespace."""
    needs.root()
    unshare = needs.tool("unshare", "util-linux")
    made = make_daemon({})
    made.command = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", *made.command]
    made.launch()
    made.wait_log("ready: ")
    assert "master[1]" in made.find_log("ready: ")
    assert made.client().ask(b"a") == b"A"
    made.hang_up()
    inside = int(Path(f"/proc/{made.pid}/task/{made.pid}/children").read_text())
    os.kill(inside, signal.SIGHUP)
    made.wait_log("reload done")
    os.kill(inside, signal.SIGTERM)
    assert made.wait_exit() == 0
