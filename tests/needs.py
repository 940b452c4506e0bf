"""What a test needs of the machine and the user it runs as: `needs.root()`, `needs.tool("nc")`.

Call it first thing in a test or fixture. Where the thing is missing, the test is skipped with the
reason; where everything has to be there (CI, or EPOLLD_REQUIRE_ALL=1) it fails instead, so that
no test goes missing unseen. Refuses to install or change anything.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_ALL = ("EPOLLD_REQUIRE_ALL", "CI")  # set and not empty, "0" or "false": skip nothing
SYSTEMD = Path("/usr/lib/systemd/systemd")


def required() -> bool:
    """Whether a missing thing is a failure here."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in REQUIRE_ALL)


def lacking(reason: str) -> NoReturn:
    """Skip the running test because of `reason`, or fail it where nothing may be skipped."""
    if required():
        pytest.fail(f"needs {reason} (may not be skipped: {' or '.join(REQUIRE_ALL)} is set)")
    pytest.skip(f"needs {reason}")


def root() -> None:
    """The test changes users, or makes namespaces."""
    if os.geteuid() != 0:
        lacking("root")


def tool(name: str, package: str = "") -> str:
    """The test runs program `name`; returns its path."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        lacking(f"{name} (apt install {package or name})")
    return path


def cpython_tests() -> None:
    """The test runs some of CPython's own, which distributions ship apart from it."""
    if importlib.util.find_spec("test") is None or not importlib.util.find_spec(
        "test.test_asyncio"
    ):
        minor = f"{sys.version_info.major}.{sys.version_info.minor}"
        lacking(f"the tests of CPython (apt install libpython{minor}-testsuite)")


def c_extension() -> None:
    """The test is of the hot path in C."""
    from epolld.net import speedups

    if speedups.fastest_transport is not speedups.CompiledTransport:
        lacking("epolld's C module (apt install gcc libc6-dev python3-dev, and remove .venv)")


def systemd_box() -> None:
    """The test boots a systemd of its own with tests/systemd-box."""
    root()
    if not SYSTEMD.exists():
        lacking("systemd (apt install systemd dbus libnss-systemd)")
    tool("dbus-daemon", "dbus")
    tool("setpriv", "util-linux")
    # It makes mount namespaces and overlays, which a container may forbid even to root.
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        lacking(f"the right to mount in a namespace of its own ({probe.stderr.strip()})")
