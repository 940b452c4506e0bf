"""CPython's own tests of asyncio, over epolld: once over its loop, once over its transports, too.

What is not run, and why: skipped.py. Nothing else may be skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import namespaces
import needs
import pytest
from skipped import entry_of, skipped

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# By engine: what is run each time, and what takes longer. All modules that there are run over the
# loop; over the transports those that have to do with transports of sockets.
QUICK = {
    "loop": ["test_buffered_proto", "test_runners", "test_selector_events", "test_unix_events"],
    "transport": [
        "test_buffered_proto",
        "test_selector_events",
        "test_server",
        "test_sock_lowlevel",
        "test_streams",
    ],
}
LONG_OVER_TRANSPORTS = ["test_events", "test_sendfile", "test_ssl", "test_sslproto"]
ENGINES = list(QUICK)


def modules() -> list[str]:
    """All test modules of this Python's test_asyncio; none if they are not installed."""
    if importlib.util.find_spec("test") is None:
        return []
    spec = importlib.util.find_spec("test.test_asyncio")
    folders = spec.submodule_search_locations if spec is not None else None
    return sorted(path.stem for each in folders or () for path in Path(each).glob("test_*.py"))


def run(*arguments: str, timeout: float) -> dict[str, dict[str, str]]:
    """Run runner.py; what became of each test, by its id."""
    command = [sys.executable, "-X", "faulthandler", str(HERE / "runner.py"), *arguments]
    if namespaces.may_be_alone():  # they try ports, which others may want as well
        command = namespaces.alone(command)
    with tempfile.TemporaryDirectory() as directory:  # for what they write
        done = subprocess.run(
            ["timeout", "-s", "ABRT", str(timeout), *command],  # and say where it is
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
    found: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        said = json.loads(line)
        if found.get(said["id"], said)["outcome"] != "failed":  # the first failure counts
            found[said["id"]] = said
    assert done.returncode == 0, f"{list(found)[-1:]} was the last:\n{done.stderr[-6000:]}"
    return found


def judge(engine: str, found: dict[str, dict[str, str]]) -> None:
    """All has passed but what is left out, and something has been run."""
    failed = [said for said in found.values() if said["outcome"] in ("failed", "skipped")]
    assert not failed, "\n\n".join(f"{s['id']} {s['outcome']}: {s['detail']}" for s in failed)
    assert Counter(said["outcome"] for said in found.values())["passed"]


@pytest.mark.parametrize("engine", ENGINES)
def test_quick_ones(engine: str) -> None:
    needs.cpython_tests()
    judge(engine, run(engine, *QUICK[engine], timeout=50))


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("engine", "module"),
    [("loop", name) for name in modules() if name not in {*QUICK["loop"], *skipped("loop")}]
    + [("transport", name) for name in LONG_OVER_TRANSPORTS],
)
def test_long_ones(engine: str, module: str) -> None:
    needs.cpython_tests()
    judge(engine, run(engine, module, timeout=220))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_left_out_is_there(engine: str) -> None:
    """An entry of skipped.py that names nothing is forgotten, or misspelt."""
    needs.cpython_tests()
    names = modules() if engine == "loop" else QUICK[engine] + LONG_OVER_TRANSPORTS
    found = run("--list", engine, *names, timeout=50)
    entries = skipped(engine)
    used = {entry_of(id, entries) for id, said in found.items() if said["outcome"] == "left out"}
    unused = {id for id in entries if id not in used and id.split(".")[0] in names}
    assert not unused
    assert sum(said["outcome"] == "there" for said in found.values()) > 200
