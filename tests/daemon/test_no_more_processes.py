"""The system gives no more processes, or no more descriptors for them: what is there goes on."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from harness import Config, Daemon, upper_at
from scrape import scrape
from test_metrics import METRICS, at, exporters, until

# Every Python imports this at its start, the master's too. While the file is there the call whose
# name is in it fails.
FAILING = """
import os

def failing(name, number):
    real = getattr(os, name)

    def call(*arguments):
        try:
            with open({file!r}) as file:
                if file.read() == name:
                    raise OSError(number, os.strerror(number))
        except FileNotFoundError:
            pass
        return real(*arguments)

    setattr(os, name, call)

failing("fork", 11)  # EAGAIN
failing("pidfd_open", 24)  # EMFILE
"""
REASON = {"fork": "Resource temporarily unavailable", "pidfd_open": "Too many open files"}
calls = pytest.mark.parametrize("call", ["fork", "pidfd_open"])


class Poor:
    """A daemon, and the fault."""

    def __init__(self, made: Daemon) -> None:
        self.made = made
        self.file = made.directory / "failing"
        made.write_module("sitecustomize", FAILING.format(file=str(self.file)))

    def fail(self, call: str) -> None:
        self.file.with_suffix(".new").write_text(call)
        self.file.with_suffix(".new").rename(self.file)

    def recover(self) -> None:
        self.file.unlink()


@pytest.fixture
def poor(make_daemon: Callable[[Config], Daemon]) -> Poor:
    return Poor(make_daemon({"services": [upper_at()], "metrics": METRICS}))


@calls
def test_a_reload_changes_nothing(poor: Poor, call: str) -> None:
    made = poor.made.start()
    client = made.client()
    assert client.ask(b"a") == b"A"
    before = {worker.pid for worker in made.wait_workers(2)}
    poor.fail(call)
    made.send(signal.SIGHUP)
    reason = f"cannot start worker 0: .*{REASON[call]}"
    made.wait_log(f"reload failed: {reason}; generation 1 goes on")
    made.expect(reason)
    assert {worker.pid for worker in made.wait_workers(2, generation=1)} == before
    assert client.ask(b"b") == b"B"
    poor.recover()
    made.reload()
    assert not before & {worker.pid for worker in made.wait_workers(2)}
    assert client.ask(b"c") == b"C"


@calls
def test_a_dead_worker_is_replaced_once_it_can_be(poor: Poor, call: str) -> None:
    made = poor.made.start()
    victim = made.wait_workers(2)[0]
    poor.fail(call)
    made.send(signal.SIGKILL, victim.pid)
    made.wait_log(rf"cannot start worker {victim.slot}: .*{REASON[call]}")
    made.expect("killed by SIGKILL", "cannot start worker")
    made.allow("next try in")
    assert made.client().ask(b"a") == b"A"
    poor.recover()
    assert victim.pid not in {worker.pid for worker in made.wait_workers(2)}


@calls
def test_a_dead_exporter_is_replaced_once_it_can_be(poor: Poor, call: str) -> None:
    made = poor.made.start()
    until(made, lambda figures: figures.sum("epolld_workers", state="serving") == 2)
    (victim,) = exporters(made)
    poor.fail(call)
    made.send(signal.SIGKILL, victim)
    made.wait_log(f"cannot start the exporter: .*{REASON[call]}")
    made.expect("killed by SIGKILL", "cannot start the exporter")
    made.allow("next try in")
    poor.recover()
    found: Any = scrape(at(made))  # who came meanwhile waits in the sockets
    assert found.sum("epolld_exporter_restarts_total") == 1
