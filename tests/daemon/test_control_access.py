"""Who may command the daemon, and what the hostile can do to it: nothing."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from control import Control
from harness import Config, Daemon
from processes import cpu_seconds, descriptors, eventually, status

ASK = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
    try:
        sock.sendall(b'{"command": "status"}\\n')
    except BrokenPipeError:
        pass  # refused already
    answer = json.loads(sock.makefile().readline())
    print("ok" if answer["ok"] else answer["error"])
except OSError as error:
    print(type(error).__name__)
"""


def ask_as(running: Daemon, user: str, group: str, *groups: str) -> str:
    """What somebody else hears: "ok", the error, or what kept him out."""
    setpriv = needs.tool("setpriv", "util-linux")
    # The system's interpreter: others may run it wherever the tests' own lies.
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    more = ["--groups", ",".join(groups)] if groups else ["--clear-groups"]
    path = str(running.runtime / "control.sock")
    return subprocess.run(
        [setpriv, "--reuid", user, "--regid", group, *more, python, "-I", "-c", ASK, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.strip()


def open_wide(running: Daemon) -> None:
    """Take the first fence away, to see the second."""
    running.runtime.chmod(0o755)
    (running.runtime / "control.sock").chmod(0o666)


def test_nobody_else_gets_near(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    running = daemon()
    socket_mode = stat.S_IMODE(os.stat(running.runtime / "control.sock").st_mode)
    assert socket_mode == 0o600
    assert ask_as(running, "root", "root") == "ok"
    assert ask_as(running, "nobody", "nogroup") == "PermissionError"
    running.runtime.chmod(0o755)
    assert ask_as(running, "nobody", "nogroup") == "PermissionError"


def test_the_kernel_is_asked_who_it_is(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    running = daemon()
    open_wide(running)
    assert ask_as(running, "nobody", "nogroup") == "denied"
    assert ask_as(running, "nobody", "root", "root", "daemon") == "denied"
    assert ask_as(running, "root", "nogroup") == "ok"
    running.expect("refused process .* of user 65534")
    assert running.count_log("refused process") == 1  # however many come


def test_the_workers_user_is_not_the_daemons(daemon: Callable[..., Daemon]) -> None:
    """Who breaks into a worker does not command the master."""
    needs.root()
    running = daemon(master={"user": "nobody"})
    assert ask_as(running, "nobody", "nogroup") == "PermissionError"
    open_wide(running)
    assert ask_as(running, "nobody", "nogroup") == "denied"
    running.expect("refused process")


def test_the_configured_group_may(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    running = daemon(master={"control_group": "games"})
    games = os.stat(running.runtime / "control.sock")
    assert (games.st_gid, stat.S_IMODE(games.st_mode)) == (60, 0o660)
    assert os.stat(running.runtime).st_gid == 60  # or the group would not get in
    assert ask_as(running, "nobody", "games") == "ok"
    assert ask_as(running, "nobody", "nogroup", "games") == "ok"  # not his first
    assert ask_as(running, "nobody", "nogroup") == "PermissionError"


def test_a_folder_that_keeps_the_group_out_is_told(make_daemon: Callable[..., Daemon]) -> None:
    needs.root()
    made = make_daemon({"master": {"control_group": "games"}})
    made.runtime.mkdir(mode=0o700)
    made.start()
    made.expect("control_group: its members cannot enter")
    assert ask_as(made, "nobody", "games") == "PermissionError"


@pytest.mark.parametrize("check", [True, False])
def test_a_group_that_is_not_there(
    make_daemon: Callable[[Config], Daemon],
    run: Callable[..., subprocess.CompletedProcess[str]],
    check: bool,
) -> None:
    made = make_daemon({"master": {"control_group": "no-such-group"}})
    if check:
        done = run("--config", str(made.config_file), "--check")
        assert done.returncode == 1
        assert ": master.control_group: master.control_group: no group 'no-such" in done.stdout
    else:
        done = run("--config", str(made.config_file))
        assert done.returncode == 77
        assert "no group 'no-such-group'" in done.stderr


def test_two_daemons_do_not_share_a_socket(
    daemon: Callable[..., Daemon], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    running = daemon()
    config, other = str(running.config_file), str(running.directory / "other.pid")
    done = run("--config", config, "--pidfile", other)
    assert done.returncode == 75
    assert "another epolld is commanded through this socket" in done.stderr
    assert Control(running).ask("status")["pid"] == running.pid


def test_the_remains_of_a_killed_daemon_are_replaced(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    first = make_daemon({}).start()
    first.send(9)
    first.wait_exit()
    assert (first.runtime / "control.sock").exists()
    eventually(lambda: not first.processes())
    second = make_daemon({"master": {"runtime_directory": str(first.runtime)}})
    second.runtime = first.runtime
    second.start()
    assert Control(second).ask("status")["pid"] == second.pid
    first.exit_code = -9
    first.allow("the master is dead")
    second.stop()


def test_hostile_clients_do_not_stall_it(daemon: Callable[..., Daemon]) -> None:
    """A line of a gigabyte, readers that do not read, a thousand that say nothing."""
    running = daemon()
    path = str(running.runtime / "control.sock")
    memory = int(status(running.pid)["VmRSS"].split()[0])
    done = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        chunk = b"x" * (1 << 20)
        while not done.is_set() and sent < 1 << 30:
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(path)
                    sock.settimeout(5)
                    while not done.is_set() and sent < 1 << 30:
                        sent += sock.send(chunk)
                except OSError:
                    continue

    def crowd() -> None:
        silent = []
        for _ in range(1000):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            silent.append(sock)
        done.wait(20)
        for sock in silent:
            sock.close()

    readers = [Control(running) for _ in range(10)]
    for reader in readers:
        for _ in range(200):
            try:
                reader.sock.settimeout(0.2)
                reader.send("config")
            except OSError:
                break
    threads = [threading.Thread(target=flood), threading.Thread(target=crowd)]
    for thread in threads:
        thread.start()
    client = running.client()
    longest = 0.0
    try:
        for _ in range(50):
            begin = time.monotonic()
            control = Control(running)
            assert control.ask("status")["state"] == "serving"
            control.close()
            longest = max(longest, time.monotonic() - begin)
            assert client.ask(b"a") == b"A"
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
        for reader in readers:
            reader.close()
    assert longest < 2, longest  # on a busy machine; alone it is milliseconds
    grown = int(status(running.pid)["VmRSS"].split()[0]) - memory
    assert grown < 32 * 1024, f"{grown} KiB"
    eventually(lambda: len(descriptors(running.pid)) < 40, what=str(descriptors(running.pid)))
    before = cpu_seconds(running.pid)
    assert Control(running).ask("status")["connections"] == 1
    assert cpu_seconds(running.pid) - before < 1


def test_any_language_will_do(daemon: Callable[..., Daemon]) -> None:
    """No library, no JSON writer even: a shell and nc."""
    running = daemon()
    nc = needs.tool("nc", "netcat-openbsd")
    done = subprocess.run(
        [nc, "-N", "-U", str(running.runtime / "control.sock")],
        input='{"command":"status"}\n',
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert json.loads(done.stdout)["result"]["pid"] == running.pid


def test_the_folder_is_made_for_a_group_and_no_wider(tmp_path: Path) -> None:
    from epolld.host import runtimedir

    runtimedir.prepare(str(tmp_path / "run"), os.getegid())
    found = os.stat(tmp_path / "run")
    assert stat.S_IMODE(found.st_mode) in (0o750, 0o710)
    assert found.st_gid == os.getegid()
