"""The pytest plugin: fixtures that run the real daemon and judge it when the test has ended.

def test_shout(epolld_daemon):
    daemon = epolld_daemon({"services": [{"name": "shout", "protocol": "myapp:Shout"}]})
    assert daemon.client().ask(b"hello") == b"HELLO"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epolld.testing.daemon import Config, Daemon

failed = pytest.StashKey[bool]()  # whether the test itself has


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Let the fixtures know how the test went."""
    report = yield
    if report.when == "call":
        item.stash[failed] = call.excinfo is not None
    return report


@pytest.fixture
def make_epolld_daemon(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[Config | str], Daemon]]:
    """Makes daemons that are not started yet; each is stopped and judged at the end.

    After a test that has failed they are stopped without a judgement. Their logs are printed, which
    pytest shows for a test that failed.
    """
    made: list[Daemon] = []
    # Workers that become another user must be able to import user code from here.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)

    def make(config: Config | str) -> Daemon:
        directory = tmp_path / f"daemon{len(made)}"
        directory.mkdir()
        made.append(Daemon(directory, config))
        return made[-1]

    yield make
    try:
        for each in reversed(made):  # a later one may be the client of an earlier one
            if request.node.stash.get(failed, True):
                each.kill()
            else:
                each.finish()
    finally:
        for each in made:
            each.kill()
            print(f"log of {each.directory.name}:", *each.lines, sep="\n  ")


@pytest.fixture
def epolld_daemon(
    make_epolld_daemon: Callable[[Config | str], Daemon],
) -> Callable[..., Daemon]:
    """Starts a daemon with a configuration, as a mapping or YAML text, and waits until it is ready.

    More arguments are options of the command `epolld`. Returns an `epolld.testing.Daemon`.
    """

    def start(config: Config | str, *arguments: str) -> Daemon:
        return make_epolld_daemon(config).start(*arguments)

    return start
