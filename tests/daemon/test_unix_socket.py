"""Services on Unix sockets: the file's mode and owner, its end, and its cousins without a file."""

import os
import socket
import stat
import subprocess
from collections.abc import Callable

import needs
import pytest
from harness import Config, Daemon, upper_at

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("mode", ["600", "666", "660"])
def test_mode(make_daemon: Callable[[Config], Daemon], mode: str) -> None:
    made = make_daemon({})
    path = made.directory / "upper.sock"
    made.write_config({"services": [upper_at({"address": f"unix:{path}", "mode": mode})]})
    made.start()
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert path.stat().st_mode & 0o777 == int(mode, 8)
    assert made.client(f"unix:{path}").ask(b"a") == b"A"
    made.reload()
    assert path.exists()
    assert made.client(f"unix:{path}").ask(b"a") == b"A"
    made.hang_up()
    made.stop()
    assert not path.exists()


def test_owner(make_daemon: Callable[[Config], Daemon]) -> None:
    needs.root()
    made = make_daemon({})
    path = made.directory / "upper.sock"
    bind = {"address": f"unix:{path}", "owner": "nobody", "group": "daemon", "mode": "660"}
    made.write_config({"services": [upper_at(bind)]})
    made.start()
    assert (path.owner(), path.group()) == ("nobody", "daemon")


def test_a_stale_file_is_replaced(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    path = made.directory / "upper.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    made.write_config({"services": [upper_at(f"unix:{path}")]})
    made.start()
    assert made.client(f"unix:{path}").ask(b"a") == b"A"


def test_another_programs_file_is_left_alone(
    make_daemon: Callable[[Config], Daemon], run: Run
) -> None:
    made = make_daemon({})
    path = made.directory / "upper.sock"
    made.write_config({"services": [upper_at(f"unix:{path}")]})
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        done = run("--config", str(made.config_file))
        assert done.returncode == 69
        assert "in use" in done.stderr
        assert path.exists()
    path.unlink()
    path.write_text("precious")
    done = run("--config", str(made.config_file))
    assert done.returncode == 69
    assert path.read_text() == "precious"


def test_a_file_put_there_later_is_not_removed(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    path = made.directory / "upper.sock"
    made.write_config({"services": [upper_at(f"unix:{path}")]})
    made.start()
    os.rename(path, f"{path}.old")
    path.write_text("somebody else's")
    made.stop()
    assert path.read_text() == "somebody else's"


def test_it_goes_with_its_service(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    path = made.directory / "upper.sock"
    made.write_config({"services": [upper_at(["127.0.0.1:0", f"unix:{path}"])]})
    made.start()
    made.reload({"services": [upper_at()]})
    assert not path.exists()
