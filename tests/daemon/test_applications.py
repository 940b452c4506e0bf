"""The application: started before a worker is ready, told of its end, stopped at last."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Config, Daemon, upper_at
from processes import eventually

from epolld.errors import ExitCode

Start = Callable[..., Daemon]
FACTS: Config = {"name": "facts", "protocol": "applications:Facts", "bind": "127.0.0.1:0"}


def app(name: str, notes: Path | None = None, **options: Any) -> Config:
    """The section of the configuration."""
    if notes is not None:
        options["notes"] = str(notes)
    return {"type": f"applications:{name}", "options": options}


def test_the_life_of_a_pool(daemon: Start, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    running = daemon(services=[FACTS], workers={"count": 1}, application=app("Pool", notes, size=3))
    assert notes.read_text().startswith("start 0 1\n")
    client = running.client(running.address("facts"))
    assert client.line() == b"(3, 0, 'facts', True, None, 'default')"
    client.close()
    eventually(lambda: "called later" in notes.read_text())
    running.wait_log("error application.*Pool.start.* failed")
    running.expect("ZeroDivisionError")
    running.reload()
    eventually(lambda: "stop 0" in notes.read_text())

    def lines() -> list[str]:
        return [line for line in notes.read_text().splitlines() if line != "called later"]

    assert lines() == ["start 0 1", "start 0 2", "draining 0", "stop 0"]
    running.stop()
    assert lines()[-2:] == ["draining 0", "stop 0"]


def test_the_life_of_a_pool_with_coroutines(daemon: Start, tmp_path: Path) -> None:
    """Beside a native service, which needs no asyncio; and a fast stop, too, stops it."""
    notes = tmp_path / "notes"
    running = daemon(services=[FACTS], workers={"count": 1}, application=app("AsyncPool", notes))
    client = running.client(running.address("facts"))
    assert client.line().startswith(b"(7, ")
    client.close()
    running.reload()
    expected = ["start", "start", "draining", "stop", "task ends"]
    eventually(lambda: notes.read_text().splitlines() == expected)
    running.stop(signal.SIGINT)
    assert notes.read_text().splitlines()[5:] == ["stop", "task ends"]


def test_every_kind_of_handler_gets_at_it(daemon: Start, tmp_path: Path) -> None:
    services = [
        {"name": name, "protocol": f"applications:{name}", "bind": "127.0.0.1:0"}
        for name in ("Blocking", "coroutine")
    ]
    running = daemon(services=services, application=app("Pool", tmp_path / "notes", size=5))
    running.allow("ZeroDivisionError")
    for name in ("Blocking", "coroutine"):
        assert running.client(running.address(name)).line() == b"5"


def test_credentials_of_a_unix_client(daemon: Start, tmp_path: Path) -> None:
    running = daemon(services=[{**FACTS, "bind": f"unix:{tmp_path}/socket"}])
    credentials = (os.getpid(), os.getuid(), os.getgid())
    line = running.client(f"unix:{tmp_path}/socket").line().decode()
    assert line.endswith(f"'facts', True, {credentials}, 'default')")


def test_the_logger_of_a_connection(daemon: Start) -> None:
    running = daemon(services=[FACTS])
    client = running.client(running.address("facts"))
    client.sock.sendall(b"hello")
    host, port = client.sock.getsockname()
    for text in ("heard 5 bytes, 100%", "100%"):
        running.wait_log(rf"warning connection.*: facts: {host}:{port}: {text}$")
        running.expect(f"{port}: {text}$")


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        (app("Broken", at="start"), "type", "does not start: ValueError: told to at start"),
        (app("Broken"), "options.at", "is required"),
        (app("Broken", at=3), "options.at", "Expected `str`, got `int`"),
        (app("Nothing"), "type", "has no attribute 'Nothing'"),
        (app("Facts"), "type", "is no application"),
        ({"type": "applications:Transport.write"}, "options", "is required"),
    ],
)
def test_what_fails_a_boot(
    make_daemon: Callable[[Config], Daemon], section: Config, path: str, message: str
) -> None:
    made = make_daemon({"services": [upper_at()], "application": section})
    made.launch()
    assert made.wait_exit() == ExitCode.CONFIG
    place = rf"{re.escape(str(made.config_file))}:\d+:\d+: application\.{path}"
    made.expect(f"{place}.*{re.escape(message)}")
    made.allow("error application", "error master", "warning master")


def test_a_failed_start_hook_is_a_failed_reload(daemon: Start) -> None:
    running = daemon(workers={"count": 1})
    running.reload({**running.config, "application": app("Broken", at="start")}, ok=False)
    assert running.client().ask(b"x") == b"X"
    running.expect("does not start: ValueError: told to at start", "reload failed")
    running.allow("error application", "error master", "warning master")


def test_hooks_that_raise_keep_no_worker(daemon: Start) -> None:
    running = daemon(workers={"count": 1}, application=app("Broken", at="draining"))
    running.reload({**running.config, "application": app("Broken", at="stop")})
    running.wait_workers(1, generation=2)
    running.stop()
    running.expect("draining of Broken raised ValueError", "stop of Broken raised ValueError")


def test_a_stop_that_takes_too_long(daemon: Start, tmp_path: Path) -> None:
    running = daemon(workers={"count": 1}, application=app("Slow", tmp_path / "notes"))
    running.stop()
    running.expect("stop of Slow raised TimeoutError.*not done within 2s")


def test_a_goodbye_that_fails_is_told(make_daemon: Callable[[Config], Daemon]) -> None:
    """A coroutine that runs beside everything else: nobody waits for what it raises."""
    made = make_daemon({"application": {"type": "mine:App"}, "workers": {"count": 1}})
    made.write_module(
        "mine",
        "class App:\n    def stop(self):\n        pass\n\n"
        "    async def draining(self):\n        raise LookupError('nobody')\n",
    )
    made.start()
    made.reload()
    made.wait_log("draining of App raised LookupError")
    made.expect("draining of App raised LookupError")
    made.wait_workers(1, generation=2)
