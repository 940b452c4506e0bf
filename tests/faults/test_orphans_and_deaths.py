"""As PID 1 of a container: all workers are killed at once, and leave it fifty orphans."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import needs
from accounts import MARKED, Load
from harness import Config, Daemon
from processes import eventually

PARENT = """
import subprocess
from served import Marked

class Parent(Marked):
    def data_received(self, data):
        for _ in range(25):
            subprocess.Popen(["sleep", "0.5"])
        super().data_received(data)
"""


def children(pid: int) -> list[str]:
    """Their names."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = []
    for each in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            names.append(Path(f"/proc/{each}/comm").read_text().strip())
    return names


def test_all_are_reaped_and_replaced(make_daemon: Callable[[Config], Daemon]) -> None:
    needs.root()
    unshare = needs.tool("unshare", "util-linux")
    made = make_daemon(
        {
            "services": [MARKED, {"name": "parent", "protocol": "parent:Parent"}],
            "logging": {"level": "debug"},
        }
    )
    made.write_module("parent", PARENT)
    made.command = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", *made.command]
    made.launch()
    made.wait_log("ready: ")
    master = int(Path(f"/proc/{made.pid}/task/{made.pid}/children").read_text())
    load = Load(made.address("marked"))
    load.start()
    before = eventually(lambda: len(w := made.workers()) == 2 and w)
    for _ in range(2):
        client = made.client(made.address("parent"))
        client.send(b"go\n")
        assert client.line().endswith(b"GO")
    for worker in before:
        os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: children(master).count("sleep") == 50, what="the orphans are its own")
    load.wait_served(50)
    eventually(lambda: len(children(master)) == 2, what="all are reaped")
    made.wait_log("reaped process .*, which is no", count=50)
    load.stop()
    load.may(reset=12, early_end=12)
    load.judge()
    os.kill(master, signal.SIGTERM)
    assert made.wait_exit() == 0
    made.expect("killed by SIGKILL")
    made.allow("next try in")
