"""HUP with something wrong: the log says what, and nothing else has happened."""

import re
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from harness import Client, Config, Daemon, free_port, upper_at
from processes import eventually

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


class Old:
    """A daemon of generation 1 with a live connection, and what must not change of it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.workers = daemon.wait_workers(2, generation=1)
        self.client = daemon.client()
        assert self.client.ask(b"a") == b"A"

    def check(self, *expected: str) -> None:
        """As if nothing had been; the log holds what is `expected`."""
        self.daemon.expect(r"error .* reload failed: .*; generation 1 goes on", *expected)
        eventually(lambda: self.daemon.workers() == self.workers, 5, "the old workers alone")
        assert self.client.ask(b"b") == b"B"
        assert self.daemon.client().ask(b"c") == b"C"
        # The cause is mended: a reload works, and there has been no other in between.
        assert self.daemon.reload({})
        self.daemon.wait_log("reload done")
        assert self.client.ask(b"d") == b"D"


@pytest.fixture
def old(daemon: Callable[..., Daemon]) -> Iterator[Old]:
    return Old(daemon())


def test_wrong_yaml_is_told_with_its_place(old: Old) -> None:
    path = re.escape(str(old.daemon.config_file))
    old.daemon.write_text("workers:\n  count: two\n  cuont: 2\nservices: [{name: upper}]\n")
    line = old.daemon.reload(ok=False)
    assert re.search(rf"reload failed: {path}:2:10: workers\.count: ", line)
    old.check(
        rf"{path}:2:10: workers\.count: ",
        rf"{path}:3:3: workers\.cuont: .*did you mean 'count'",
        rf"{path}:4:12: services\.upper\.bind: missing",
    )


def test_no_yaml_at_all(old: Old) -> None:
    old.daemon.write_text("services: [")
    old.daemon.reload(ok=False)
    old.check(r"epolld\.yaml:2:1: not YAML")


def test_missing_file(old: Old) -> None:
    old.daemon.config_file.unlink()
    old.daemon.reload(ok=False)
    old.check("there is no such file")


def test_import_error_in_user_code(old: Old) -> None:
    old.daemon.write_module("broken", "import epolld\n\n1 / 0\n")
    old.daemon.reload({"services": [{**upper_at(), "protocol": "broken:P"}]}, ok=False)
    old.check("exited with status 78", r"epolld\.yaml:\d+:\d+: .*broken\.py:3: ZeroDivisionError")


def test_unknown_protocol(old: Old) -> None:
    old.daemon.reload({"services": [upper_at(), {"name": "ecko", "bind": "127.0.0.1:0"}]}, ok=False)
    old.check("exited with status 78", "ecko.*did you mean 'echo'")


def test_worker_that_exits_at_boot(old: Old) -> None:
    old.daemon.write_module("leaves", "import os\nos._exit(5)\n")
    old.daemon.reload({"services": [{**upper_at(), "protocol": "leaves:P"}]}, ok=False)
    old.check(r"worker \d exited with status 5 before all were ready", r"exited with status 5$")


def test_worker_that_crashes_at_boot(old: Old) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    old.daemon.write_module("crashes", code)
    old.daemon.reload({"services": [{**upper_at(), "protocol": "crashes:P"}]}, ok=False)
    old.check(r"worker \d killed by SIGKILL before all were ready", r"killed by SIGKILL$")


def test_worker_that_takes_too_long(old: Old) -> None:
    old.daemon.write_module("slow", "import time\ntime.sleep(60)\n")
    slow = {**upper_at(), "protocol": "slow:P"}
    old.daemon.reload({"services": [slow], "workers": {"boot_timeout": "500ms"}}, ok=False)
    old.check(r"not ready after 0\.5s \(boot_timeout\), killing it", "killed by SIGKILL")
    old.daemon.allow("told to stop, but still there")


def test_only_one_worker_fails(old: Old) -> None:
    """The others of its generation were ready, and must go."""
    code = "import os\n\ntry:\n    os.mkdir('once')\nexcept FileExistsError:\n    os._exit(5)\n"
    old.daemon.write_module("second", code + "from protocols import Who as P\n")
    old.daemon.reload({"services": [{**upper_at(), "protocol": "second:P"}]}, ok=False)
    old.check(r"exited with status 5")


def test_address_in_use(old: Old) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        line = old.daemon.reload({"services": [upper_at(["127.0.0.1:0", taken])]}, ok=False)
        assert taken in line
        assert "in use" in line
        old.check(f"error .*{taken}")


def test_addresses_bound_for_it_are_given_back(old: Old) -> None:
    port = free_port()
    path = old.daemon.directory / "new.sock"
    old.daemon.write_module("leaves", "import os\nos._exit(5)\n")
    bind = [f"127.0.0.1:{port}", f"unix:{path}"]
    old.daemon.reload({"services": [{**upper_at(bind), "protocol": "leaves:P"}]}, ok=False)
    eventually(lambda: len(old.daemon.processes()) == 3, 5, "the new workers gone")
    with pytest.raises(ConnectionRefusedError):
        Client(f"127.0.0.1:{port}")
    assert not path.exists()
    old.check("exited with status 5")


def test_queued_clients_are_not_taken_by_workers_that_never_serve(
    daemon: Callable[..., Daemon],
) -> None:
    """Suspended, so that clients wait in the queue; then one new worker of two cannot boot."""
    running = daemon(services=[WHO])
    running.send(signal.SIGWINCH)
    eventually(lambda: not running.workers(), 5, "no worker")
    waiting = [running.client(running.address("who")) for _ in range(5)]
    # The second one to boot waits until the first is ready, and then dies.
    code = """
import os, time
try:
    os.mkdir('once')
except FileExistsError:
    time.sleep(0.5)
    os._exit(5)
from protocols import Who as P
"""
    running.write_module("second", code)
    running.reload({"services": [{**WHO, "protocol": "second:P"}]}, ok=False)
    running.expect("reload failed", "exited with status 5")
    eventually(lambda: not running.workers(generation=2), 5, "no worker of the failed generation")
    running.reload({"services": [WHO]})
    pids = {str(worker.pid).encode() for worker in running.wait_workers(2, generation=3)}
    assert {client.line() for client in waiting} <= pids
