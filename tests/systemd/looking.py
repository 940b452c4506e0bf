"""What the steps in the box look with: at the unit, its processes, its journal, its addresses.

Runs inside, beside inside.py, with the system's python3 and nothing else.
"""

import errno
import re
import socket
import subprocess
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADDRESS = ("127.0.0.1", 1688)  # of the configuration that ships
CGROUP = Path("/sys/fs/cgroup/system.slice/epolld.service/cgroup.procs")
PATIENCE = 15.0  # seconds for anything that is waited for

seen: dict[str, dict[str, Any]] = {}


@contextmanager
def step(name: str) -> Iterator[dict[str, Any]]:
    """Collect what one step sees."""
    facts = seen.setdefault(name, {})
    try:
        yield facts
    except Exception:
        facts["error"] = traceback.format_exc()
        facts["journal"] = journal()
        facts["unit"] = show()


def run(*command: str, text: str | None = None) -> dict[str, Any]:
    """Run a command to its end."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def systemctl(*arguments: str) -> dict[str, Any]:
    """Run systemctl."""
    return run("systemctl", *arguments)


def show(unit: str = "epolld") -> dict[str, str]:
    """What systemd holds of a unit."""
    names = "ActiveState,SubState,Result,MainPID,StatusText,NRestarts,ExecMainStatus,ExecMainCode"
    lines = systemctl("show", unit, "--property", names)["out"].splitlines()
    return dict(line.split("=", 1) for line in lines)


def journal() -> str:
    """All that epolld and systemd said about the unit so far."""
    run("journalctl", "--sync")
    return str(run("journalctl", "--unit", "epolld", "--output", "cat", "--no-pager")["out"])


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`; TimeoutError when it stays false."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:g} s in vain for {what}")
        time.sleep(0.05)  # between two looks: nothing is told by its length
    return value


def wait_for_journal(pattern: str, since: str) -> str:
    """The first match of `pattern` after what the journal held before, `since`."""
    found = wait_for(
        f"{pattern!r} in the journal",
        lambda: re.search(pattern, journal()[len(since) :], re.MULTILINE),
    )
    return str(found.group())


def processes() -> list[int]:
    """The processes of the unit."""
    return sorted(map(int, CGROUP.read_text().split())) if CGROUP.exists() else []


def workers() -> list[int]:
    """Those that are not the master."""
    return [pid for pid in processes() if pid != int(show()["MainPID"])]


def titles() -> list[str]:
    """How the unit's processes are called, and who they are."""
    pids = ",".join(map(str, processes()))
    lines = run("ps", "--no-headers", "-o", "user:16,args", "-p", pids)["out"].splitlines()
    return [" ".join(line.split()) for line in lines]


def capabilities() -> dict[str, int]:
    """What each of the unit's processes may do of what root may, by its title."""
    found = {}
    for pid in processes():
        title = Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0 ").decode()
        status = Path(f"/proc/{pid}/status").read_text()
        found[title] = int(re.findall(r"^CapPrm:\s+(\w+)$", status, re.MULTILINE)[0], 16)
    return found


def call(address: Any, text: bytes = b"hello\n") -> socket.socket:
    """Connect, at the first try or not at all, and send a line and the end."""
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    client.settimeout(PATIENCE)
    client.connect(address)
    client.sendall(text)
    client.shutdown(socket.SHUT_WR)
    return client


def hear(client: socket.socket) -> str:
    """All that comes until the end, or what happened instead."""
    with client:
        try:
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()
        except OSError as error:
            return str(error)


def ask(address: Any) -> str:
    """Send a line, and return what comes back."""
    return hear(call(address))


def page(path: str) -> list[Any]:
    """Status and text of a page of the exporter."""
    with urllib.request.urlopen(f"http://127.0.0.1:9188{path}", timeout=PATIENCE) as answer:
        return [answer.status, answer.read().decode()]


def port_refuses(address: Any = ADDRESS) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as client:
        return client.connect_ex(address) == errno.ECONNREFUSED


def serves() -> str:
    """Ask until there is an answer: the daemon is on its way."""

    def answer() -> str:
        try:
            return ask(ADDRESS)
        except OSError:
            return ""

    return str(wait_for("an answer", answer))


def main_pid(unit: dict[str, str]) -> int:
    """The master's. Never 0, which would be our own process group, outside of the box, too."""
    pid = int(unit["MainPID"])
    if pid <= 0:
        raise RuntimeError(f"there is no master: {unit}")
    return pid


def another_master(before: dict[str, str]) -> dict[str, str] | None:
    """What systemd holds of the unit once it has another main process than `before`."""
    unit = show()
    fresh = unit["MainPID"] not in ("0", before["MainPID"])
    return unit if unit["ActiveState"] == "active" and fresh else None


def last_fed() -> int:
    """When systemd last heard from the daemon, in microseconds of the monotonic clock."""
    name = "WatchdogTimestampMonotonic"
    return int(systemctl("show", "epolld", "--property", name, "--value")["out"])
