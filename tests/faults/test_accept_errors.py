"""accept() fails: for want of something it is tried again later, without a spin; what is only the
end of one connection is passed over. Injected by user code, in the worker."""

import errno
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Config, Daemon
from processes import cpu_seconds

# While the file is there accept() fails with the errno in it.
FAILING = """
import os, socket
from served import Marked

real = socket.socket._accept
times = 0

def accept(self):
    global times
    try:
        with open("failing") as file:
            number, most = map(int, file.read().split())
    except (FileNotFoundError, ValueError):
        times = 0
        return real(self)
    if times >= most:
        return real(self)
    times += 1
    raise OSError(number, os.strerror(number))

socket.socket._accept = accept
"""


@pytest.fixture
def failing(make_daemon: Callable[[Config], Daemon]) -> Daemon:
    """A daemon whose accept() fails on request."""
    made = make_daemon({"services": [{**MARKED, "protocol": "failing:Marked"}]})
    made.write_module("failing", FAILING)
    return made.start()


@pytest.mark.parametrize("name", ["ENFILE", "ENOBUFS", "ENOMEM"])
def test_for_want_of_something(failing: Daemon, name: str) -> None:
    number = getattr(errno, name)
    file = failing.directory / "failing"
    with under_load(failing) as load:
        workers = failing.wait_workers(2)
        file.with_suffix(".new").write_text(f"{number} 1000000")
        file.with_suffix(".new").rename(file)
        failing.wait_log("cannot accept", count=2)  # each worker says so once
        before, begin = sum(cpu_seconds(w.pid) for w in workers), time.monotonic()
        load.wait_served(150)  # those who are in
        time.sleep(1)  # what they use meanwhile, with some clients to serve
        used = sum(cpu_seconds(w.pid) for w in workers) - before
        assert used < 0.5 * (time.monotonic() - begin)
        file.unlink()
        failing.wait_workers(2)
        load.wait_served(150)
        assert failing.count_log("cannot accept") == 2
    failing.expect("cannot accept: ")


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPERM"])
def test_the_end_of_one_connection(failing: Daemon, name: str) -> None:
    """100 in a row: the next one is served at once, and nothing is logged."""
    with under_load(failing) as load:
        (failing.directory / "failing").write_text(f"{getattr(errno, name)} 100")
        load.wait_served(200)
        assert load.slowest < 5
