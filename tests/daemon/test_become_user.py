"""Started as root, workers are the configured user, for good; the master stays."""

import os
import pwd
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import needs
from harness import Config, Daemon, upper_at
from processes import eventually, status


def interpreter_for_all() -> None:
    """The workers go on importing after they have become another user."""
    interpreter = Path(sys.executable).resolve()
    for path in (interpreter, *interpreter.parents, *Path(sys.prefix, "x").parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            needs.lacking(f"an interpreter that other users may run ({path} is closed)")


def test_workers_become_the_user(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    interpreter_for_all()
    running = daemon(master={"user": "nobody"})
    nobody = pwd.getpwnam("nobody")
    groups = {str(gid) for gid in os.getgrouplist("nobody", nobody.pw_gid)}
    for generation in (1, 2):
        for worker in running.wait_workers(2, generation=generation):
            facts = status(worker.pid)
            assert facts["Uid"].split() == [str(nobody.pw_uid)] * 4
            assert facts["Gid"].split() == [str(nobody.pw_gid)] * 4
            assert set(facts["Groups"].split()) == groups
            assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
            assert facts["Umask"] == "0027"
        assert status(running.pid)["Uid"].split()[0] == "0"
        assert running.client().ask(b"a") == b"A"
        running.hang_up()
        if generation == 1:
            running.reload()


def test_group_and_umask(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    interpreter_for_all()
    running = daemon(master={"user": "nobody", "group": "daemon", "umask": "077"})
    for worker in running.wait_workers(2):
        facts = status(worker.pid)
        assert set(facts["Gid"].split()) == {"1"}
        assert facts["Umask"] == "0077"


def test_their_log_file_can_be_rotated(make_daemon: Callable[[Config], Daemon]) -> None:
    """The workers may not open it: the master hands it to them."""
    needs.root()
    interpreter_for_all()
    made = make_daemon({})
    folder = made.directory / "log"
    folder.mkdir(mode=0o700)
    talker = {"name": "talker", "protocol": "protocols:Talker", "bind": "127.0.0.1:0"}
    logging = {"target": "file", "file": str(folder / "epolld.log"), "level": "debug"}
    made.write_config({"master": {"user": "nobody"}, "services": [talker], "logging": logging})
    made.launch()
    file = folder / "epolld.log"
    eventually(lambda: file.exists() and "ready: " in file.read_text(), 8)
    client = made.client(file.read_text().partition("listening on ")[2].split()[0])
    client.line()
    (folder / "epolld.log").rename(folder / "old.log")
    made.send(signal.SIGUSR1)
    new = folder / "epolld.log"
    eventually(lambda: new.exists() and "log file reopened" in new.read_text(), 5)
    client.ask(b"loud", 1)
    eventually(lambda: "heard b'loud'" in new.read_text(), 5)
    client.close()
    made.stop()
    assert " error " not in new.read_text()


def test_without_root_the_user_is_skipped(make_daemon: Callable[[Config], Daemon]) -> None:
    """The same file serves a plain user's shell."""
    needs.root()
    interpreter_for_all()
    setpriv = needs.tool("setpriv", "util-linux")
    made = make_daemon({"master": {"user": "daemon"}, "services": [upper_at()]})
    made.directory.chmod(0o777)
    made.command = [
        *(setpriv, "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"),
        *made.command,
    ]
    made.start()
    for worker in made.wait_workers(2):
        assert status(worker.pid)["Uid"].split()[0] == str(pwd.getpwnam("nobody").pw_uid)
