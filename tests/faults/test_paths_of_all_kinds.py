"""What somebody has put where the pid file, the log, the socket shall be: never followed, never
waited for, and told with its name."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from accounts import MARKED, under_load
from harness import Config, Daemon
from processes import eventually


def symlink(path: Path) -> None:
    target = path.parent.parent / "precious"
    target.write_text("precious\n")
    path.symlink_to(target)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


PLANTED = {"a symlink": symlink, "a FIFO": fifo, "a directory": directory}


def refused(made: Daemon, path: Path) -> None:
    """It does not start, at once, and names the path; what is there is left alone."""
    before = os.lstat(path).st_mode
    made.launch()
    assert made.wait_exit(8) in (69, 73)
    made.close_log()
    assert any(str(path) in line for line in made.lines), made.lines
    made.allow("^epolld: ")
    assert os.lstat(path).st_mode == before
    precious = path.parent.parent / "precious"
    assert not precious.exists() or precious.read_text() == "precious\n"
    (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()


@pytest.mark.parametrize("what", PLANTED)
def test_pid_file(make_daemon: Callable[[Config], Daemon], what: str) -> None:
    made = make_daemon({"services": [MARKED]})
    made.runtime.mkdir()
    PLANTED[what](made.runtime / "epolld.pid")
    refused(made, made.runtime / "epolld.pid")


@pytest.mark.parametrize("what", PLANTED)
def test_log_file(make_daemon: Callable[[Config], Daemon], what: str) -> None:
    made = make_daemon({})
    folder = made.directory / "logs"
    folder.mkdir()
    logging = {"target": "file", "file": str(folder / "log")}
    made.write_config({"services": [MARKED], "logging": logging})
    PLANTED[what](folder / "log")
    refused(made, folder / "log")


@pytest.mark.parametrize("what", PLANTED)
def test_socket(make_daemon: Callable[[Config], Daemon], what: str) -> None:
    made = make_daemon({})
    folder = made.directory / "sockets"
    folder.mkdir()
    made.write_config({"services": [{**MARKED, "bind": f"unix:{folder}/socket"}]})
    PLANTED[what](folder / "socket")
    refused(made, folder / "socket")


def test_a_planted_pid_is_never_signalled(make_daemon: Callable[[Config], Daemon]) -> None:
    """The file names a process that is none of ours: it is replaced, and the process lives."""
    made = make_daemon({"services": [MARKED]})
    made.runtime.mkdir()
    (made.runtime / "epolld.pid").write_text(f"{os.getpid()}\n")
    made.start()
    with under_load(made) as load:
        made.reload()
        load.wait_served(20)
    assert int((made.runtime / "epolld.pid").read_text()) == made.pid


def test_the_log_is_replaced_by_a_fifo(make_daemon: Callable[[Config], Daemon]) -> None:
    """And USR1 comes: the old file goes on, nobody waits for a reader."""
    made = make_daemon({})
    log = made.directory / "log"
    made.write_config({"services": [MARKED], "logging": {"target": "file", "file": str(log)}})
    started(made, log)
    moved = log.rename(made.directory / "log.1")
    os.mkfifo(log)
    made.send(signal.SIGUSR1)
    eventually(lambda: "cannot open the log file" in moved.read_text(), what="told")
    made.send(signal.SIGHUP)
    eventually(lambda: "reload failed" in moved.read_text(), what="it goes on in the old file")
    log.unlink()
    made.send(signal.SIGHUP)
    eventually(lambda: log.exists() and "reload done" in log.read_text(), what="all is well")


def test_a_full_disk(make_daemon: Callable[[Config], Daemon]) -> None:
    """The log has no room: clients are served all the same, and once there is room, it goes on."""
    needs.root()
    made = make_daemon({})
    folder = made.directory / "small"
    folder.mkdir()
    log = folder / "log"
    made.write_config(
        {
            "services": [MARKED],
            "logging": {"target": "file", "file": str(log), "level": "debug"},
        }
    )
    script = f'mount -t tmpfs -o size=64k none {folder}; exec "$@"'
    made.command = ["unshare", "--mount", "sh", "-c", script, "sh", *made.command]
    inside = Path(f"/proc/{launched(made)}/root{log}")
    eventually(lambda: inside.exists() and "ready: " in inside.read_text(), what="it is ready")
    filler = inside.with_name("filler")
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(1 << 17))
    size = inside.stat().st_size
    for _ in range(3):
        made.send(signal.SIGHUP)
        client = made.client(address_in(inside))
        client.send(b"a\n")
        assert client.line().endswith(b" A")
        client.close()
    filler.unlink()
    made.send(signal.SIGHUP)
    eventually(lambda: "reload done" in inside.read_text()[size - 4096 :], what="the log goes on")


def launched(made: Daemon) -> int:
    made.launch()
    return made.pid


def address_in(log: Path) -> str:
    line = next(line for line in log.read_text().splitlines() if "ready: " in line)
    return line.split("listening on ")[1].split(" (")[0]


def started(made: Daemon, log: Path) -> None:
    """Start it; its log is a file."""
    made.launch()
    eventually(lambda: log.exists() and "ready: " in log.read_text(), what="it is ready")


def test_a_read_only_file_system(make_daemon: Callable[[Config], Daemon]) -> None:
    """It does not start, and says what is the matter; or it is remounted later, and goes on."""
    needs.root()
    made = make_daemon({})
    folder = made.directory / "small"
    folder.mkdir()
    made.write_config({"services": [MARKED], "master": {"runtime_directory": str(folder / "run")}})
    script = f'mount -t tmpfs -o ro none {folder}; exec "$@"'
    made.command = ["unshare", "--mount", "sh", "-c", script, "sh", *made.command]
    made.launch()
    assert made.wait_exit() == 73
    made.close_log()
    assert any("Read-only file system" in line for line in made.lines), made.lines
    made.allow("^epolld: ")
