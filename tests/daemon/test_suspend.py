"""WINCH: the workers leave, clients wait in the queue; HUP serves them."""

import os
import pty
import signal
from collections.abc import Callable

from harness import Config, Daemon
from processes import eventually


def test_clients_wait_until_resumed(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    live = running.client()
    assert live.ask(b"a") == b"A"
    running.send(signal.SIGWINCH)
    running.wait_log("suspended: HUP resumes")
    eventually(lambda: [w.state for w in running.workers()] == ["draining"], 5)
    assert live.ask(b"b") == b"B"
    live.close()
    eventually(lambda: not running.workers(), 5, "no worker")
    queued = [running.client() for _ in range(10)]
    for client in queued:
        client.sock.sendall(b"c")
    running.reload()
    for client in queued:
        assert client.read(1) == b"C"
        client.close()
    running.wait_workers(2, generation=2)


def test_a_failed_reload_stays_suspended(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.send(signal.SIGWINCH)
    eventually(lambda: not running.workers(), 5, "no worker")
    running.write_text("nonsense: 1")
    running.reload(ok=False)
    assert running.workers() == []
    running.reload({})
    running.wait_workers(2, generation=2)
    running.expect("reload failed", "nonsense", "services")


def test_stop_while_suspended(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.send(signal.SIGWINCH)
    eventually(lambda: not running.workers(), 5, "no worker")
    assert running.stop() == 0


def test_a_terminals_own_winch_is_ignored(make_daemon: Callable[[Config], Daemon]) -> None:
    """It sends one at each change of its size."""
    made = make_daemon({"logging": {"level": "debug"}})
    file = made.directory / "epolld.log"
    sock = made.directory / "sock"
    made.write_config(
        {
            "services": [{"name": "upper", "bind": f"unix:{sock}"}],
            "logging": {"level": "debug", "target": "file", "file": str(file)},
        }
    )
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(made.directory)
        argv = [*made.command, "--config", str(made.config_file)]
        os.execve(argv[0], argv, made.environment)
    made.adopt_session(pid)
    try:
        eventually(lambda: file.exists() and "ready: " in file.read_text(), 8)
        os.kill(pid, signal.SIGWINCH)
        eventually(lambda: "WINCH ignored" in file.read_text(), 5)
        assert made.client(f"unix:{sock}").ask(b"a") == b"A"
        made.hang_up()
        # Ctrl-C: the master alone gets it, and ends its workers in order.
        os.write(master, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert "stopping now" in file.read_text()
        assert " error " not in file.read_text()
    finally:
        os.close(master)
