"""USR1: master and workers go on in a new file, and lose no line."""

import json
import signal
from collections.abc import Callable

from harness import Config, Daemon
from processes import descriptors, eventually


def test_rotated_file(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    file, old = made.directory / "epolld.log", made.directory / "epolld.log.1"
    port_file = made.directory / "sock"
    made.write_config(
        {
            "services": [
                {"name": "t", "protocol": "protocols:Talker", "bind": f"unix:{port_file}"}
            ],
            "logging": {"target": "file", "file": str(file), "level": "debug", "format": "json"},
        }
    )
    made.launch()
    eventually(lambda: file.exists() and "ready: " in file.read_text(), 8)
    assert file.stat().st_mode & 0o777 == 0o640
    client = made.client(f"unix:{port_file}")
    client.line()
    client.ask(b"before", 1)
    eventually(lambda: "before" in file.read_text(), 5)
    counts = {pid: len(descriptors(pid)) for pid in made.processes()}
    for turn in range(3):
        file.rename(old)
        made.send(signal.SIGUSR1)
        eventually(lambda: file.exists() and "log file reopened" in file.read_text(), 5)
        client.ask(b"turn%d" % turn, 1)
        eventually(lambda turn=turn: f"turn{turn}" in file.read_text(), 5)
        assert f"turn{turn}" not in old.read_text()
    assert {pid: len(descriptors(pid)) for pid in made.processes()} == counts
    # A worker forked now logs there, too.
    client.close()
    made.stop()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[-1]["message"] == "stopped"
    assert {line["level"] for line in lines} <= {"info", "debug"}


def test_without_a_file_nothing_happens(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.send(signal.SIGUSR1)
    running.wait_log("got SIGUSR1")
    assert running.client().ask(b"a") == b"A"
