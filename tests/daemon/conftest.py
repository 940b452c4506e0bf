"""The fixture `daemon`: makes daemons that are judged when the test has ended."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import COMMAND, Config, Daemon

outcome = pytest.StashKey[bool]()  # whether the test itself has failed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Let the fixture know how the test went."""
    report = yield
    if report.when == "call":
        item.stash[outcome] = call.excinfo is not None
    return report


@pytest.fixture
def make_daemon(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[Config], Daemon]]:
    """Makes daemons that are not started yet; each is stopped and judged at the end."""
    made: list[Daemon] = []
    # Workers that become another user must be able to import user code from here.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)

    def make(config: Config) -> Daemon:
        directory = tmp_path / f"daemon{len(made)}"
        directory.mkdir()
        made.append(Daemon(directory, config))
        return made[-1]

    yield make
    try:
        for each in made:
            if request.node.stash.get(outcome, True):
                each.kill()  # it has failed already: no further complaint
            else:
                each.finish()
    finally:
        for each in made:
            each.kill()
            print(f"log of {each.directory.name}:", *each.lines, sep="\n  ")


@pytest.fixture
def daemon(make_daemon: Callable[[Config], Daemon]) -> Callable[..., Daemon]:
    """Starts a daemon with these sections of the configuration, and waits until it is ready."""

    def start(*arguments: str, **config: Any) -> Daemon:
        return make_daemon(config).start(*arguments)

    return start


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command to its end."""

    def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            cwd=tmp_path,
            check=False,
            **settings,
        )

    return run
