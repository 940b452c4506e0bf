"""accept() fails: for want of something it is tried again later, without a spin; what is only the
end of one connection is passed over. Injected by user code, in the worker."""

import errno
import select
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Config, Daemon

TRIES = 100
# While the file is there accept() fails with the errno in it.
FAILING = """
import os
from epolld.net import acceptor
from served import Marked

real = acceptor.accept
times = 0

def accept(listener):
    global times
    try:
        with open("failing") as file:
            number, most = map(int, file.read().split())
    except (FileNotFoundError, ValueError):
        times = 0
        return real(listener)
    if times >= most:
        return real(listener)
    times += 1
    raise OSError(number, os.strerror(number))

acceptor.accept = accept
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
        file.with_suffix(".new").write_text(f"{number} {TRIES}")
        file.with_suffix(".new").rename(file)
        failing.wait_log("cannot accept", count=2)  # each worker says so once
        client = failing.client()
        client.send(b"me\n")
        load.wait_served(150)  # those who are in
        # A worker that tried again and again would have done so TRIES times by now, and succeeded.
        assert not select.select([client.sock], [], [], 1)[0]
        file.unlink()
        assert client.line().endswith(b" ME")
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
