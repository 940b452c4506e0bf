"""One boot of a real systemd for all tests here: what tests/systemd/inside.py saw in the box."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import needs
import pytest

PROJECT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"  # what scripts/install takes
PARTS = ("epolld", "etc", "scripts", "systemd", "pyproject.toml", "README.md", "LICENSE")
BOX_LIMIT = 300  # seconds; it takes about 50, on a busy machine three times that


@pytest.fixture(scope="session")
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Every step's facts, by the step's name; all processes of pytest-xdist share one boot."""
    needs.systemd_box()
    needs.tool("nc", "netcat-openbsd")
    needs.tool(SYSTEM_PYTHON, "python3-venv")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of the run
    place = folder / "systemd-seen.json"
    with open(folder / "systemd-seen.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            done = _boot(request, tmp_path_factory)
            place.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    code, facts, said = json.loads(place.read_text())
    assert code == 0, said
    found: dict[str, Any] = json.loads(facts)
    return found


def _boot(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """Do everything in the box."""
    assert request.config.cache is not None
    project = tmp_path_factory.mktemp("systemd") / "project"
    _copy_project(project)
    wheels = _wheels(request.config.cache)
    inherited = {name: value for name, value in os.environ.items() if "PIP_" not in name}
    # No package index can be reached from in there, nor may one be looked for.
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": "/dev/null"}
    return subprocess.run(
        [
            *(str(PROJECT / "tests/systemd-box"), "run", "-t", str(BOX_LIMIT)),
            # Both may lie on a file system that the box does not see by itself (/tmp).
            *("-b", str(project.parent), "-b", str(wheels)),
            *(SYSTEM_PYTHON, str(project / "inside.py"), str(project)),
        ],
        env=inherited | offline | {"LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _copy_project(to: Path) -> None:
    """What scripts/install reads, and where it may write without touching the checkout."""
    to.mkdir()
    for part in PARTS:
        if (PROJECT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / part, to / part, ignore=ignored)
        else:
            shutil.copy(PROJECT / part, to)
    for script in ("inside.py", "looking.py"):
        shutil.copy(Path(__file__).with_name(script), to)


def _wheels(cache: pytest.Cache) -> Path:
    """All that pip needs in the box, fetched outside; kept until the needs change."""
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = [*document["build-system"]["requires"], *document["project"]["dependencies"]]
    wanted += document["project"]["optional-dependencies"]["metrics"]
    key = hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    wheels = Path(cache.mkdir(f"systemd-wheels-{key}"))
    if not (wheels / "complete").exists():
        maker = wheels / "venv"  # not ours: the wheels must fit the system's interpreter
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--clear", maker], check=True)
        subprocess.run([maker / "bin/pip", "wheel", "-q", "-w", wheels, *wanted], check=True)
        shutil.rmtree(maker)
        (wheels / "complete").touch()
    return wheels
