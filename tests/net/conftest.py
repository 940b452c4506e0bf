"""Every test of the engine gets a loop and must log no internal error."""

import logging
import os
from collections.abc import Iterator

import needs
import pytest
from movers import World, open_world
from wiring import serve_in_c, serve_in_python

from epolld.net.loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A real event loop."""
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture
def world() -> Iterator[World]:
    """Workers between which connections move."""
    with open_world() as world:
        yield world


# What is tested with the hot path in C and in Python, whichever the other tests find (speedups.py).
BOTH_WAYS = {"test_transport", "test_transport_parity", "test_senders", "test_framing_batches"}
WAYS = ["python", "c"]

if os.environ.get("EPOLLD_NO_EXTENSIONS"):
    WAYS.remove("c")
    collect_ignore = ["test_speedups.py"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Those of `BOTH_WAYS` twice; but who looks at `calls` sees only Python's."""
    if metafunc.module.__name__ in BOTH_WAYS and "calls" not in metafunc.fixturenames:
        metafunc.parametrize("_hot_path", WAYS, indirect=True)


@pytest.fixture(autouse=True)
def _hot_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hot path in "python" or in "c"; as it is found where the test does not say."""
    way = getattr(request, "param", "")
    if way == "python":
        serve_in_python(monkeypatch)
    elif way == "c":
        needs.c_extension()
        serve_in_c(monkeypatch)


@pytest.fixture(autouse=True)
def _no_internal_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The loop fences mistakes of ours and goes on; here they fail the test."""
    yield
    bad = [r for r in caplog.get_records("call") if r.name == "epolld.loop"]
    assert not [r.getMessage() for r in bad if r.levelno >= logging.ERROR] or any(
        getattr(r, "expected", False) for r in bad
    )
