"""What a container's only process has to do: signals as PID 1, orphans reaped, probes answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest

TOP = Path(__file__).parents[2]

CONFIG = """\
master: {{runtime_directory: {folder}/run}}
workers: {{count: 1, graceful_timeout: 5s}}
services:
  - {{name: orphans, protocol: "orphans:Orphans", bind: "unix:{folder}/s"}}
metrics: {{bind: "unix:{folder}/metrics"}}
logging: {{level: debug}}
"""

# A connection leaves an orphan behind, whose parent becomes PID 1.
ORPHANS = """
import os
from epolld import Protocol

class Orphans(Protocol):
    def data_received(self, data):
        child = os.fork()
        if not child:
            if os.fork():
                os._exit(0)
            os._exit(7)
        os.waitpid(child, 0)
        self.transport.write(data)
"""


@pytest.fixture
def pid1(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """epolld as PID 1 of a namespace of its own."""
    needs.root()
    needs.tool("unshare", "util-linux")
    config = tmp_path / "epolld.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "orphans.py").write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": f"{TOP}:{tmp_path}"}
    inside = [sys.executable, "-m", "epolld", "--config", str(config)]
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *inside],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    yield process
    process.kill()
    process.wait()
    assert process.stderr
    process.stderr.close()


def wait_line(process: subprocess.Popen[str], text: str) -> str:
    """Read the log up to this line."""
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return line
    pytest.fail(f"ended without {text!r}")


def test_as_pid_1(pid1: subprocess.Popen[str], tmp_path: Path) -> None:
    assert "master[1]" in wait_line(pid1, "ready: ")
    for path in ("/healthz", "/readyz"):
        command = [sys.executable, "-m", "epolld.probe", f"unix:{tmp_path}/metrics", path]
        done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=True)
        assert done.stdout == "ok\n"
    talk = f"printf x | '{sys.executable}' -m epolld.client unix:{tmp_path}/s"
    subprocess.run(talk, shell=True, check=True, capture_output=True, cwd=TOP)
    wait_line(pid1, "which is no child of ours")
    (child,) = Path(f"/proc/{pid1.pid}/task/{pid1.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    wait_line(pid1, "stopped")
    assert pid1.wait(10) == 0


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("unix:/nonexistent", "unix:/nonexistent: No such file or directory"),
        ("127.0.0.1:1", "127.0.0.1:1: Connection refused"),
        ("nonsense", "'nonsense' is not HOST:PORT or unix:PATH"),
    ],
)
def test_a_probe_that_meets_nobody_fails(where: str, why: str) -> None:
    command = [sys.executable, "-m", "epolld.probe", where]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{why}\n", "")
