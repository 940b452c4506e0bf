"""Options that name a file: the protocol gets what is in it, nobody else gets to see it."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import needs
from harness import Config, Daemon
from test_become_user import interpreter_for_all

CODE = """
import hashlib
from epolld import Protocol

class Knows(Protocol):
    def __init__(self, password: str, more: dict | None = None):
        self.known = password + str((more or {}).get("token", ""))

    def data_received(self, data):
        self.transport.write(hashlib.sha256(self.known.encode()).hexdigest().encode() + b"\\n")
"""


def knows(*files: Path) -> Config:
    """A service with one or two secrets."""
    options: Config = {"password": {"secret_file": str(files[0])}}
    if len(files) > 1:
        options["more"] = {"token": {"secret_file": str(files[1])}}
    return {"name": "knows", "protocol": "knows:Knows", "bind": "127.0.0.1:0", "options": options}


def digest(text: str) -> bytes:
    """What the protocol answers."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest().encode()


def test_only_root_can_read_it_and_the_worker_is_not_root(
    make_daemon: Callable[[Config], Daemon], tmp_path: Path
) -> None:
    needs.root()
    interpreter_for_all()
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("hunter2\n")
    two.write_text("-and more")
    for file in (one, two):
        file.chmod(0o600)
    running = make_daemon({"services": [knows(one, two)], "master": {"user": "nobody"}})
    running.directory.chmod(0o755)
    running.write_module("knows", CODE)
    running.start()
    client = running.client()
    client.sock.sendall(b"?")
    assert client.line() == digest("hunter2-and more")
    one.write_text("changed\n")
    running.reload()
    client = running.client()
    client.sock.sendall(b"?")
    assert client.line() == digest("changed-and more")
    running.send(signal.SIGUSR2)
    running.wait_log("reload done", 20, 2)
    assert "hunter2" not in "\n".join(running.lines)


def test_nobody_gets_to_see_it(
    run: Callable[..., subprocess.CompletedProcess[str]],
    make_daemon: Callable[[Config], Daemon],
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    made = make_daemon({"services": [knows(secret)]})
    made.write_module("knows", CODE)
    environment = {**os.environ, "PYTHONPATH": str(made.directory)}
    for option in ("--print-config", "--check"):
        done = run(option, "--config", str(made.config_file), env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "hunter2" not in done.stdout + done.stderr
    shown = run("--print-config", "--config", str(made.config_file)).stdout
    assert "secret_file" in shown or "hidden" in shown


def test_a_file_that_cannot_be_read(
    run: Callable[..., subprocess.CompletedProcess[str]],
    make_daemon: Callable[[Config], Daemon],
    tmp_path: Path,
) -> None:
    made = make_daemon({"services": [knows(tmp_path / "missing")]})
    made.write_module("knows", CODE)
    done = run("--check", "--config", str(made.config_file))
    assert done.returncode == 1
    assert "services.knows.options.password" in done.stdout
    assert "missing: No such file or directory" in done.stdout
