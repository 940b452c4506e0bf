"""The source package and the wheel: built, installed into an environment of their own, and run."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from email.message import Message
from pathlib import Path

import needs
import pytest

from epolld import __version__

PROJECT = Path(__file__).parents[2]
PARTS = (
    *("epolld", "etc", "docs", "deploy", "examples", "scripts", "systemd", "tests"),
    *("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"),
)
BUILD = "from setuptools import build_meta; import sys; print(build_meta.{}(sys.argv[1]))"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source package, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("packages")
    sources = folder / "sources"
    sources.mkdir()
    copy_sources(sources)
    archive = folder / build("build_sdist", sources, folder)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked")  # of our own making
    (unpacked,) = (folder / "unpacked").iterdir()
    return archive, folder / build("build_wheel", unpacked, folder)


def copy_sources(to: Path) -> None:
    """What a checkout has, without what was built in it."""
    for part in PARTS:
        if (PROJECT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "bin")
            shutil.copytree(PROJECT / part, to / part, ignore=ignored, symlinks=True)
        else:
            shutil.copy(PROJECT / part, to)


def build(hook: str, sources: Path, to: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run one of the build system's hooks (PEP 517); returns the file's name."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(hook), str(to)],
        cwd=sources,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert "Deprecat" not in done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what epolld needs it borrows from the tests' own."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install"]
    quiet = ["-q", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, *quiet, str(packages[1])], check=True)
    # The folder alone: the project itself, installed there in place, is not found through it.
    (library,) = place.glob("lib/python*/site-packages")
    (library / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def run(place: Path, *command: str) -> str:
    """Run a program of the environment, far from the sources; returns what it prints."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(place / "bin" / command[0]), *command[1:]],
        cwd="/",
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_package_and_nothing_else(packages: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(packages[1]) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"epolld", f"epolld-{__version__}.dist-info"}
    assert "epolld/py.typed" in names
    sources = {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "epolld").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    compiled = {name for name in names if name.endswith(".so")}
    assert sources == {name for name in names if name.startswith("epolld/")} - compiled
    assert {name.partition(".")[0] for name in compiled} <= {"epolld/net/_speedups"}


def test_the_source_package_is_whole(packages: tuple[Path, Path]) -> None:
    with tarfile.open(packages[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "epolld/py.typed"),
        *("etc/epolld.yaml", "systemd/epolld.service", "systemd/epolld@.service"),
        *("scripts/install", "scripts/_venv", "docs/control.md", "tests/conftest.py"),
        "epolld/net/_speedups.c",
    ):
        assert needed in names
    assert not any(name.endswith(".pyc") for name in names)


def test_the_metadata_are_complete(packages: tuple[Path, Path]) -> None:
    facts = metadata(packages[1])
    assert (facts["Name"], facts["Version"]) == ("epolld", __version__)
    for field in ("Summary", "Author", "Requires-Python", "License-Expression", "License-File"):
        assert facts[field], field
    assert facts["Description-Content-Type"] == "text/markdown"
    assert str(facts.get_payload()).startswith("# epolld")
    needs = [need for need in facts.get_all("Requires-Dist", []) if "extra ==" not in need]
    names = {need.partition(">")[0] for need in needs}
    assert names == {"msgspec", "python-daemon", "pyyaml", "setproctitle"}
    assert {"metrics", "top"} <= set(facts.get_all("Provides-Extra", []))
    assert any(line.startswith("Typing :: Typed") for line in facts.get_all("Classifier", []))


def test_the_commands_run(installed: Path) -> None:
    assert run(installed, "epolld", "--version") == f"epolld {__version__}\n"
    assert run(installed, "epolldctl", "--version") == f"epolldctl {__version__}\n"
    assert "usage: epolld-client" in run(installed, "epolld-client", "--help")
    config = str(PROJECT / "etc/epolld.yaml")
    assert run(installed, "epolld", "--config", config, "--check") == "OK\n"


def test_what_is_installed_is_what_runs(installed: Path) -> None:
    code = "import epolld; print(epolld.__file__)"
    assert run(installed, "python", "-c", code).startswith(str(installed))


def test_the_hot_path_is_in_c_where_there_is_a_compiler(installed: Path) -> None:
    needs.c_extension()
    code = "from epolld.net.service import Service; print(Service.transport_type.__name__)"
    assert run(installed, "python", "-c", code) == "CompiledTransport\n"


def test_without_a_compiler_all_is_installed_but_that(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    copy_sources(sources)
    environment = {**os.environ, "CC": "/bin/false", "LDSHARED": "/bin/false"}
    wheel = tmp_path / build("build_wheel", sources, tmp_path, environment)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "epolld/net/speedups.py" in names
    assert not [name for name in names if name.endswith(".so")]


def test_pytest_finds_the_plugin(installed: Path) -> None:
    code = (
        "from importlib.metadata import entry_points, distribution;"
        "print([e.value for e in distribution('epolld').entry_points if e.group == 'pytest11'])"
    )
    assert "epolld.testing.plugin" in run(installed, "python", "-c", code)
