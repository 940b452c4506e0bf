"""Every test of the engine gets a loop, and must leave no descriptor and no logged error."""

import gc
import logging
import os
from collections.abc import Iterator

import pytest

from epolld.net.loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A real event loop."""
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def _no_internal_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The loop fences mistakes of ours and goes on; here they fail the test."""
    yield
    bad = [r for r in caplog.get_records("call") if r.name == "epolld.loop"]
    assert not [r.getMessage() for r in bad if r.levelno >= logging.ERROR] or any(
        getattr(r, "expected", False) for r in bad
    )


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """Compares the open descriptors of this process before and after."""
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before
