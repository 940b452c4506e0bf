"""--daemonize: the command ends when the workers are ready; the daemon is nobody's child."""

import os
import pty
import select
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Client, Config, Daemon, free_port
from processes import (
    descriptors,
    eventually,
    in_session,
    parent,
    status,
    terminal,
    wait_ended,
    workers_among,
)


class Background:
    """A daemon in the background, known by its pid file."""

    def __init__(self, made: Daemon) -> None:
        self.made = made
        self.port = free_port()
        self.log = made.directory / "epolld.log"
        made.write_config(
            {
                "services": [{"name": "upper", "bind": f"127.0.0.1:{self.port}"}],
                "logging": {"target": "file", "file": str(self.log)},
            }
        )
        self.pid = 0

    def begin(self) -> None:
        """Start it as a shell would."""
        self.made.launch("--daemonize")
        assert self.made.wait_exit() == 0, self.made.lines
        self.find()

    def find(self) -> None:
        """Learn which process it is."""
        self.pid = int((self.made.runtime / "epolld.pid").read_text())
        self.made.adopt_session(os.getsid(self.pid))

    def end(self) -> str:
        """Stop it; returns its log."""
        os.kill(self.pid, 15)
        wait_ended(self.pid)
        text = self.log.read_text()
        assert " error " not in text
        assert text.rstrip().endswith("stopped")
        return text


@pytest.fixture
def background(make_daemon: Callable[[Config], Daemon]) -> Background:
    return Background(make_daemon({}))


def test_ready_when_the_command_ends(background: Background) -> None:
    background.begin()
    # Now, without waiting for anything.
    assert len(background.made.workers(state="")) >= 1
    assert Client(f"127.0.0.1:{background.port}").ask(b"a") == b"A"
    assert "ready: 2 workers" in background.end()


def test_it_is_nobodys_child_and_has_no_terminal(background: Background) -> None:
    background.begin()
    assert background.pid != background.made.pid
    assert parent(background.pid) != os.getpid()
    assert terminal(background.pid) == 0
    # Neither leader of a session, so it can never get a terminal.
    assert os.getsid(background.pid) != background.pid
    assert os.readlink(f"/proc/{background.pid}/cwd") == "/"
    streams = descriptors(background.pid)
    assert {streams[fd] for fd in (0, 1, 2)} == {os.devnull}
    background.end()


def test_nobody_holds_the_shells_standard_error(background: Background) -> None:
    """Else `epolld --daemonize 2>&1 | tee start.log` would wait for the daemon's end."""
    background.begin()
    for worker in workers_among(in_session(os.getsid(background.pid))):
        held = {fd: what for fd, what in descriptors(worker.pid).items() if fd in (0, 1, 2)}
        assert set(held.values()) == {os.devnull}
    assert background.made._reader is not None
    background.made._reader.join(2)
    assert not background.made._reader.is_alive()
    background.end()


def test_started_from_a_terminal(background: Background) -> None:
    """The terminal is closed afterwards, and the daemon goes on."""
    made = background.made
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(made.directory)
        argv = [*made.command, "--config", str(made.config_file), "--daemonize"]
        os.execve(argv[0], argv, made.environment)
    assert select.select([], [], [], 0) == ([], [], [])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    background.find()
    assert terminal(background.pid) == 0
    for worker in made.workers():
        assert terminal(worker.pid) == 0
    os.close(master)
    assert Client(f"127.0.0.1:{background.port}").ask(b"a") == b"A"
    background.end()


def test_failure_is_the_commands_failure(background: Background) -> None:
    made = background.made
    made.write_module("broken", "1 / 0\n")
    config = dict(made.config)
    config["services"] = [{"name": "upper", "protocol": "broken:P", "bind": "127.0.0.1:0"}]
    made.write_config(config)
    made.launch("--daemonize")
    assert made.wait_exit() == 78
    made.expect("epolld: .*services.upper.protocol: cannot import broken: .*ZeroDivisionError")
    assert "start failed" in background.log.read_text()
    made.allow("")
    # The command ends when it knows; the daemon, which told it, a moment later.
    eventually(lambda: not (made.runtime / "epolld.pid").exists())


def test_closed_standard_streams(background: Background) -> None:
    """`epolld --daemonize <&- >&- 2>&-`: no listener may get the number of one of them."""
    made = background.made
    script = 'exec "$@" <&- >&- 2>&-'
    argv = [*made.command, "--config", str(made.config_file), "--daemonize"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *argv], env=made.environment, cwd=made.directory, timeout=20
    )
    assert done.returncode == 0
    background.find()
    assert Client(f"127.0.0.1:{background.port}").ask(b"a") == b"A"
    background.end()


def test_reload_and_rotation_in_the_background(background: Background) -> None:
    background.begin()
    os.kill(background.pid, 1)
    eventually(lambda: "reload done" in background.log.read_text(), 8)
    old = Path(f"{background.log}.1")
    background.log.rename(old)
    os.kill(background.pid, 10)
    eventually(lambda: background.log.exists() and "reopened" in background.log.read_text(), 8)
    assert Client(f"127.0.0.1:{background.port}").ask(b"a") == b"A"
    assert status(background.pid)["Umask"] == "0027"
    background.end()
