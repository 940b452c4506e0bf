"""The command epolldctl: what it prints, and how it ends. What the daemon does: test_control.py."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Config, Daemon, upper_at
from processes import eventually

CTL = [sys.executable, "-m", "epolld.ctl"]


class Ctl:
    """Runs the command against one daemon."""

    def __init__(self, running: Daemon) -> None:
        self.socket = ("--socket", str(running.runtime / "control.sock"))

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(*self.socket, *arguments)
        assert done.returncode == code, done
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*CTL, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **settings,
    )


def test_looking(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    client.ask(b"abc")
    ctl = Ctl(running)
    assert "serving: generation 1, 2 of 2 workers, 1 connections" in ctl("status").stdout
    assert ctl.json("status")["pid"] == running.pid
    head, *rows = ctl("workers").stdout.splitlines()
    assert head.split()[:4] == ["WORKER", "PID", "GEN", "STATE"]
    assert {int(row.split()[1]) for row in rows} == {each.pid for each in running.workers()}
    assert running.address() in ctl("services").stdout
    head, row = ctl("connections", "--peer", "127.0.0.1", "--service", "upper").stdout.splitlines()
    assert head.split()[:2] == ["ID", "PEER"]
    assert row.split()[1] == "{}:{}".format(*client.sock.getsockname())
    assert ctl.json("connections")["bytes_in"] == 3
    assert ctl("connections", "--idle", "1h").stdout.splitlines() == [head]
    assert "runtime_directory: " in ctl("config").stdout
    assert "in run" in ctl("dump").stdout
    assert len(ctl.json("dump")["workers"]) == 2


def test_doing(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    ctl = Ctl(running)
    assert ctl("scale", "3").stdout == "workers wanted: 3\n"
    running.wait_workers(3)
    clients = [running.client() for _ in range(3)]
    for client in clients:
        client.ask(b"x")
    listed = ctl("connections", "--json").stdout.splitlines()
    by_peer = {each["peer"]: each["id"] for each in map(json.loads, listed)}
    ctl("kill", by_peer["{}:{}".format(*clients[0].sock.getsockname())])
    assert clients[0].is_ended()
    assert "say which" in ctl("kill", code=64).stderr
    ctl("kill", "--all")
    assert clients[1].is_ended()
    assert clients[2].is_ended()
    assert ctl("suspend").stdout == "suspended\n"
    assert ctl("resume").stdout == "serving\n"
    ctl("log-level", "warning")
    assert ctl.json("status")["log_level"] == "warning"
    ctl("reopen-logs")
    assert ctl("stop").stdout == "stopped\n"
    assert running.wait_exit() == 0
    assert ctl("status", code=69).stdout == ""


def test_reload_and_upgrade_print_what_changed(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    ctl = Ctl(running)
    running.write_config({"workers": {"count": 1}})
    lines = ctl("reload").stdout.splitlines()
    assert lines[0] == "workers.count: 2 → 1"
    assert lines[1].startswith("generation 2, 1 workers, epolld ")
    assert ctl("upgrade").stdout.startswith("generation 3, 1 workers, epolld ")


@pytest.mark.parametrize("command", ["reload", "upgrade"])
def test_a_refused_configuration_is_told_line_by_line(
    daemon: Callable[..., Daemon], command: str
) -> None:
    running = daemon()
    running.write_text("workers: {cuont: 2}\nservices:\n- {name: 9, bind: nowhere}\n")
    done = Ctl(running)(command, code=78 if command == "reload" else 1)
    file = running.config_file
    for place in ("1:11: workers.cuont", "3:10: services", "3:19: services"):
        assert f"epolldctl: {file}:{place}" in done.stderr
    assert f"{command} failed: " in done.stderr.splitlines()[-1]
    failed = Ctl(running)(command, "--json", code=78 if command == "reload" else 1)
    assert len(json.loads(failed.stdout)["problems"]) == 3
    running.expect(f"{command} failed")
    running.allow("epolld.yaml")


def test_a_daemon_that_does_not_answer(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.send(signal.SIGSTOP)
    try:
        done = Ctl(running)("status", "--timeout", "300ms", code=75)
    finally:
        running.send(signal.SIGCONT)
    assert "no answer in time" in done.stderr


def test_a_worker_that_does_not_answer_is_named(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    worker = running.workers()[0]
    running.send(signal.SIGSTOP, worker.pid)
    try:
        done = Ctl(running)("connections", code=1)
    finally:
        running.send(signal.SIGCONT, worker.pid)
    assert f"worker 0 (pid {worker.pid}): no answer" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("fly",), ("scale",), ("scale", "x"), ("connections", "--idle", "x"), ("log-level", "x")],
    ids=" ".join,
)
def test_a_wrong_command_line(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 64
    assert "usage: epolldctl" in done.stderr


def test_what_the_daemon_refuses_of_the_arguments(daemon: Callable[..., Daemon]) -> None:
    ctl = Ctl(daemon())
    assert "at `$.workers`" in ctl("scale", "0", code=1).stderr
    assert "no service 'x'" in ctl("connections", "--service", "x", code=1).stderr
    assert "peers: " in ctl("kill", "--peer", "x", code=1).stderr


def test_where_the_socket_is_looked_for(make_daemon: Callable[[Config], Daemon]) -> None:
    running = make_daemon({})
    running.runtime = running.directory / "epolld"
    running.write_text("services: [{name: upper, bind: '127.0.0.1:0'}]\n")
    running.start()
    there = {**os.environ, "XDG_RUNTIME_DIR": str(running.directory)}
    elsewhere = {**os.environ, "XDG_RUNTIME_DIR": "/nowhere", "TMPDIR": "/nowhere"}
    path = str(running.runtime / "control.sock")
    assert run("status", env=there).returncode == 0
    assert run("status", env={**there, "RUNTIME_DIRECTORY": "/nowhere"}).returncode in (0, 69)
    assert run("status", env={**elsewhere, "EPOLLD_CONTROL": path}).returncode == 0
    assert run("--config", str(running.config_file), "status", env=there).returncode == 0
    done = run("status", env=elsewhere)
    if not os.path.exists("/run/epolld/control.sock"):
        assert done.returncode == 69
        assert "/nowhere/epolld/control.sock" in done.stderr
    done = run("--instance", "none-such", "status")
    where = "/run/epolld-none-such/control.sock"
    assert done.stderr == f"epolldctl: {where}: No such file or directory; is epolld running?\n"


def test_a_path_too_long_for_the_kernel(make_daemon: Callable[[Config], Daemon]) -> None:
    running = make_daemon({})
    running.runtime = running.directory / ("x" * 100)
    running.write_config({})
    running.start()
    assert Ctl(running).json("status")["state"] == "serving"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_names_every_command(shell: str) -> None:
    script = run("completion", shell).stdout
    for command in ("status", "kill", "log-level", "completion"):
        assert command in script
    assert "\n".join(["debug", "info"]) in script.replace(" ", "\n")


def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(run("completion", "bash").stdout)
    ask = (
        f". {script}; COMP_WORDS=(epolldctl {{}}); COMP_CWORD=$((${{{{#COMP_WORDS[@]}}}} - 1));"
        ' _epolldctl; echo "${{COMPREPLY[@]}}"'
    )

    def complete(words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", ask.format(words)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("sta") == ["status"]
    assert complete("--json re") == ["reload", "resume", "reopen-logs"]
    assert complete("log-level w") == ["warning"]
    assert complete("stop --f") == ["--fast"]
    assert complete(f"--socket {tmp_path}/comp") == [str(script)]


@pytest.fixture
def screen() -> Iterator[tuple[int, int]]:
    """A terminal: our end and the program's."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def test_top_draws_the_workers(daemon: Callable[..., Daemon], screen: tuple[int, int]) -> None:
    running = daemon(services=[upper_at()])
    ours, theirs = screen
    path = str(running.runtime / "control.sock")
    process = subprocess.Popen(
        [*CTL, "--socket", path, "top", "--interval", "100ms"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
    )
    os.close(theirs)
    seen = b""
    try:
        while seen.count(b"ACCEPTS/S") < 3:
            seen += os.read(ours, 4096)
    finally:
        process.send_signal(signal.SIGINT)
    text = seen.decode()
    assert all(str(worker.pid) in text for worker in running.workers())
    while True:
        try:
            if not os.read(ours, 4096):
                break
        except OSError:  # the other end is closed
            break
    assert process.wait(10) == 130


def test_watch_goes_on_until_nobody_reads(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    path = str(running.runtime / "control.sock")
    process = subprocess.Popen(
        [*CTL, "--socket", path, "watch", "--interval", "100ms"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(2):
        assert len(json.loads(process.stdout.readline())["workers"]) == 2
    process.stdout.close()
    assert process.wait(10) == 0
    eventually(lambda: Ctl(running).json("status"))
