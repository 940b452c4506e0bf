"""The pytest plugin as a user has it: by its entry point, in a pytest of its own."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from epolld.testing.processes import in_session

MODULE = """\
from epolld import Protocol

class Shout(Protocol):
    def data_received(self, data):
        if data == b"burn":
            1 / 0
        self.transport.write(data.upper())
"""


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a test in a folder that has the module `shouting`."""
    (folder / "shouting.py").write_text(MODULE)
    (folder / "test_it.py").write_text(test)
    found = entry_points(group="pytest11", name="epolld")
    by_name = [] if found else ["-p", "epolld.testing.plugin"]  # an older environment: see conftest
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *by_name, *options],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_daemon_for_a_test(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        '''
YAML = """
services:
  - {name: shout, protocol: shouting:Shout}
  - {name: echo}
"""

def test_shout(epolld_daemon):
    daemon = epolld_daemon(YAML)
    assert daemon.client().ask(b"hello") == b"HELLO"
    assert daemon.client(daemon.address("echo")).ask(b"hello") == b"hello"
    daemon.reload()
    assert daemon.client().ask(b"hello") == b"HELLO"

def test_upper(epolld_daemon):
    first, second = epolld_daemon({}), epolld_daemon({"workers": {"count": 1}})
    assert first.address() != second.address()
    assert second.client().ask(b"hello") == b"HELLO"
    second.hang_up()
    assert second.stop() == 0
''',
    )
    assert "2 passed" in done.stdout, done.stdout


def test_what_is_wrong_with_a_daemon_fails_its_test(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
import subprocess
import pytest

SHOUT = {"services": [{"name": "shout", "protocol": "shouting:Shout"}]}

@pytest.fixture
def burnt(epolld_daemon):
    daemon = epolld_daemon(SHOUT)
    assert daemon.client().ask(b"burn", 1) == b""
    return daemon

def test_an_error_in_the_log(burnt):
    pass

def test_an_error_that_is_expected(burnt):
    burnt.expect("raised ZeroDivisionError")

def test_an_expected_error_that_does_not_come(burnt):
    burnt.expect("ZeroDivisionError", "KeyError")

@pytest.mark.parametrize("fails", [False, True])
def test_a_process_is_left(epolld_daemon, fails):
    other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    epolld_daemon(SHOUT).adopt_session(other.pid)
    print("PID", other.pid)
    assert not fails

def test_no_start(epolld_daemon):
    epolld_daemon({"services": [{"name": "shout", "protocol": "nowhere:Shout"}]})
""",
        "-rA",
    ).stdout
    tail = done.rpartition("short test summary info")[2]
    for line in (
        "PASSED test_it.py::test_an_error_that_is_expected",
        "ERROR test_it.py::test_an_error_in_the_log",
        "ERROR test_it.py::test_an_expected_error_that_does_not_come",
        "ERROR test_it.py::test_a_process_is_left[False]",
        "FAILED test_it.py::test_a_process_is_left[True]",
        "FAILED test_it.py::test_no_start",
    ):
        assert line in tail, done
    assert "2 failed, 4 passed, 3 errors" in tail
    assert "unexpected in the log: " in done
    assert "data_received of Shout raised ZeroDivisionError" in done
    assert "not in the log: KeyError" in done
    assert "a process is left" in done
    assert "it ended without 'ready: '" in done
    assert "there is no module 'nowhere'" in done
    pids = {int(line.split()[1]) for line in done.splitlines() if line.startswith("PID ")}
    assert len(pids) == 2
    assert not any(in_session(pid) for pid in pids)
