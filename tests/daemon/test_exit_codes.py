"""A start that cannot be: the documented status, one clear reason on standard error, no remains."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import needs
import pytest
from harness import COMMAND, HERE

Start = Callable[..., subprocess.CompletedProcess[str]]

SERVICE = "services: [{name: upper, bind: '127.0.0.1:0'}]\n"


@pytest.fixture(params=["foreground", "--daemonize"])
def start(
    request: pytest.FixtureRequest, run: Start, tmp_path: Path
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Starts a daemon that ends at once."""
    more = [] if request.param == "foreground" else [request.param]

    def start(text: str, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "epolld.yaml"
        if "runtime_directory" not in text:
            text = f"master: {{runtime_directory: {tmp_path / 'run'}}}\n{text}"
        file.write_text(text)
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{HERE}"}
        done = run("--config", str(file), *arguments, *more, env=environment, **settings)
        assert "Traceback" not in done.stderr
        return done

    yield start
    left = list((tmp_path / "run").iterdir()) if (tmp_path / "run").exists() else []
    assert [path.name for path in left if path.name != "kept"] == []


def test_64_unknown_option(start: Start) -> None:
    done = start(SERVICE, "--no-such-option")
    assert done.returncode == 64
    assert "--no-such-option" in done.stderr


@pytest.mark.parametrize("option", ["--conf", "--work"])
def test_64_no_abbreviations(start: Start, option: str) -> None:
    assert start(SERVICE, option, "1").returncode == 64


def test_64_contradiction(start: Start) -> None:
    two = "services: [{name: upper, bind: '127.0.0.1:0'}, {name: echo, bind: '127.0.0.1:0'}]\n"
    done = start(two, "--bind", "127.0.0.1:0")
    assert done.returncode == 64
    assert "--service" in done.stderr


def test_69_address_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        done = start(f"services: [{{name: upper, bind: '{place}'}}]")
    assert done.returncode == 69
    assert place in done.stderr
    assert "in use" in done.stderr


def test_69_not_a_descriptor(start: Start) -> None:
    assert start("services: [{name: upper, bind: 'fd:77'}]").returncode == 69


def test_70_worker_does_not_boot(start: Start, tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import os\nos._exit(3)\n")
    done = start("services: [{name: mine, protocol: 'leaves:P', bind: '127.0.0.1:0'}]\n")
    assert done.returncode == 70
    assert "exited with status 3 before all were ready" in done.stderr


def test_70_worker_takes_too_long(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    done = start(
        "workers: {boot_timeout: 300ms}\n"
        "services: [{name: mine, protocol: 'slow:P', bind: '127.0.0.1:0'}]\n"
    )
    assert done.returncode == 70


def test_73_runtime_directory(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = start(f"master: {{runtime_directory: {tmp_path / 'file'}}}\n{SERVICE}")
    assert done.returncode == 73
    assert str(tmp_path / "file") in done.stderr


def test_73_log_file(start: Start, tmp_path: Path) -> None:
    done = start(f"logging: {{target: file, file: {tmp_path / 'no' / 'such.log'}}}\n{SERVICE}")
    assert done.returncode == 73


def test_73_pid_file_is_a_symbolic_link(start: Start, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "link.pid").symlink_to(precious)
    done = start(SERVICE, "--pidfile", str(tmp_path / "link.pid"))
    assert done.returncode == 73
    assert "symbolic link" in done.stderr
    assert precious.read_text() == "kept"


def test_77_unknown_user(start: Start) -> None:
    needs.root()
    done = start(SERVICE, "--set", "master.user=no-such-user")
    assert done.returncode == 77
    assert "no-such-user" in done.stderr


def test_77_no_right_to_switch(start: Start, tmp_path: Path) -> None:
    """Root without the capability: only the worker finds out."""
    needs.root()
    setpriv = needs.tool("setpriv", "util-linux")
    file = tmp_path / "epolld.yaml"
    done = start(SERVICE, "--check")
    assert done.returncode == 0
    done = subprocess.run(
        [
            *(setpriv, "--bounding-set", "-setuid,-setgid", "--inh-caps", "-setuid,-setgid"),
            *(*COMMAND, "--config", str(file)),
            *("--set", "master.user=nobody"),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    assert "cannot become user nobody" in done.stderr


def test_78_misspelt_key(start: Start) -> None:
    done = start(f"workers: {{cuont: 3}}\n{SERVICE}")
    assert done.returncode == 78
    assert "workers.cuont: unknown key 'cuont'; did you mean 'count'" in done.stderr


def test_78_unknown_protocol(start: Start) -> None:
    done = start("services:\n- name: ecko\n  bind: 127.0.0.1:0\n")
    assert done.returncode == 78
    assert "did you mean 'echo'" in done.stderr
    assert "services.ecko.protocol" in done.stderr


def test_78_bad_options(start: Start) -> None:
    done = start("services:\n- name: upper\n  bind: 127.0.0.1:0\n  options:\n    loud: true\n")
    assert done.returncode == 78
    assert ":6:5: services.upper.options.loud: " in done.stderr
