"""Every test of the engine gets a loop and must log no internal error."""

import logging
from collections.abc import Iterator

import pytest
from movers import World, open_world

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


@pytest.fixture(autouse=True)
def _no_internal_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The loop fences mistakes of ours and goes on; here they fail the test."""
    yield
    bad = [r for r in caplog.get_records("call") if r.name == "epolld.loop"]
    assert not [r.getMessage() for r in bad if r.levelno >= logging.ERROR] or any(
        getattr(r, "expected", False) for r in bad
    )
