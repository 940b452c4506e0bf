"""Runs modules of CPython's own `test.test_asyncio` over epolld, in a process of its own.

    runner.py [--list] loop|transport MODULE...

`loop`: each asyncio loop is a worker's (`WorkerLoop`) over a worker's selector; its transports
are asyncio's. `transport`: its transports, too, are epolld's (see adapter.py). One JSON object a
line comes out: a test's id, what became of it, and the seconds that it took. What is in skipped.py
is not run; with --list nothing is.

Works with each CPython whose tests are installed, and knows none of them.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.selector_events
import asyncio.unix_events
import importlib
import json
import logging
import selectors
import subprocess  # noqa: F401  it takes its own selector now, before ours is put in place
import sys
import time
import traceback
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

from skipped import entry_of, skipped

from epolld.net.loop import EventLoop
from epolld.runtime.aio import WorkerLoop
from epolld.runtime.selector import SharedSelector

PACKAGE = "test.test_asyncio."


class Selector(SharedSelector):
    """A worker's selector together with the worker's loop: made and closed as one."""

    def __init__(self) -> None:
        self.native = EventLoop()
        super().__init__(self.native)

    def close(self) -> None:
        """As selectors.BaseSelector.close."""
        super().close()
        self.native.close()


class Loop(WorkerLoop):
    """What the tests get for `asyncio.SelectorEventLoop`."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__(Selector() if selector is None else selector)


def put_in_place() -> None:
    """From here on asyncio makes its loops over epolld's."""
    module: Any = asyncio.unix_events
    replaced: Any = {selectors: ("DefaultSelector", "EpollSelector")}
    for name in replaced[selectors]:
        setattr(selectors, name, Selector)
    stock = module._UnixSelectorEventLoop
    for each in (asyncio, module):
        for name in ("SelectorEventLoop", "EventLoop"):
            if getattr(each, name, None) is stock:
                setattr(each, name, Loop)
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(module, name, None)
        if policy is not None:
            policy._loop_factory = Loop


class Result(unittest.TestResult):
    """Says what became of each test as soon as that is known; a failed subtest fails its test."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._begun = time.monotonic()

    def _say(self, test: Any, outcome: str, detail: str = "") -> None:
        test = getattr(test, "test_case", test)  # of a subtest
        say(test.id(), outcome, detail, time.monotonic() - self._begun)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self._say(test, "passed")

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._say(test, "failed", text_of(err))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._say(test, "failed", text_of(err))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._say(test, "failed", text_of(err))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._say(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._say(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._say(test, "failed", "unexpected success")


def text_of(err: Any) -> str:
    """A traceback."""
    return "".join(traceback.format_exception(*err))


def say(id: str, outcome: str, detail: str = "", seconds: float = 0.0) -> None:
    """One line for whoever started this."""
    line = {"id": id.removeprefix(PACKAGE), "outcome": outcome, "detail": detail}
    line["seconds"] = round(seconds, 3)
    print(json.dumps(line), file=OUT, flush=True)


def tests_in(suite: Any) -> Iterator[unittest.TestCase]:
    """All single tests."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_in(each)
        else:
            yield each


def main() -> None:
    """Run the modules that the command line names."""
    arguments = sys.argv[1:]
    if list_only := arguments[0] == "--list":
        del arguments[0]
    engine, *names = arguments
    logging.basicConfig(level=logging.CRITICAL)
    put_in_place()
    if engine == "transport":
        import adapter

        adapter.put_in_place()
    entries = skipped(engine)
    wanted = unittest.TestSuite()
    for name in names:
        if name in entries:
            say(name, "left out")
            continue
        module = importlib.import_module(PACKAGE + name)
        for test in tests_in(unittest.defaultTestLoader.loadTestsFromModule(module)):
            if entry_of(test.id().removeprefix(PACKAGE), entries):
                say(test.id(), "left out")
            elif list_only:
                say(test.id(), "there")
            else:
                wanted.addTest(test)
    warnings.simplefilter("default")
    wanted.run(Result())


if __name__ == "__main__":
    OUT = sys.stdout
    sys.stdout = sys.stderr  # what the tests print
    main()
