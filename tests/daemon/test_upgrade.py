"""USR2: the master executes its program anew in place; nobody notices but `ps`."""

import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import HERE, Client, Config, Daemon
from processes import descriptors, eventually, title, wait_ended

import epolld

WHERE = {"name": "mine", "protocol": "movable:Where", "bind": "127.0.0.1:0"}
USER: Config = {"services": [{"name": "mine", "protocol": "mine:P", "bind": "127.0.0.1:0"}]}
IN_TRIAL = 'os.environ.get("EPOLLD_UPGRADE_FORMAT")'


def pid_of(client: Client) -> int:
    """Who serves it now."""
    client.sock.sendall(b"?")
    return int(client.line())


def upgrade(running: Daemon, ok: bool = True) -> None:
    """USR2, and wait for the reload that it begins with."""
    before = running.count_log("reload (done|failed)")
    running.send(signal.SIGUSR2)
    line = running.wait_log("reload (done|failed)|upgrade failed", 10, before + 1)
    assert ("reload done" in line) is ok, line


def pids(running: Daemon, generation: int | None = None) -> set[int]:
    return {worker.pid for worker in running.workers(generation)}


@pytest.fixture
def copied(make_daemon: Callable[[Config], Daemon], tmp_path: Path) -> tuple[Daemon, Path]:
    """A daemon that runs from a copy of the package, which can be changed."""
    package = tmp_path / "copy" / "epolld"
    shutil.copytree(
        Path(epolld.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    made = make_daemon({})
    made.environment["PYTHONPATH"] = f"{package.parent}:{made.directory}:{HERE}"
    made.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return made, package


# -- the normal case ---------------------------------------------------------------------------


def test_same_process_and_connections_move(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE])
    client = running.client(running.address("mine"))
    old = pid_of(client)
    for generation in (2, 3):
        upgrade(running)
        workers = running.wait_workers(2, generation=generation)
        assert pid_of(client) in {worker.pid for worker in workers}
        assert old not in {worker.pid for worker in workers}
    assert running.count_log(rf"master\[{running.pid}\]: upgraded from epolld .* 2 workers") == 2
    assert title(running.pid) == "epolld: master"


def test_new_code_takes_effect(copied: tuple[Daemon, Path]) -> None:
    made, package = copied
    made.start()
    client = made.client()
    assert client.ask(b"a") == b"A"
    version = package / "__init__.py"
    version.write_text(version.read_text().replace(epolld.__version__, "99.9"))
    service = package / "services" / "upper.py"
    service.write_text(service.read_text().replace("data.upper()", "b'*' + data.upper()"))
    upgrade(made)
    assert "to 99.9;" in made.find_log("upgraded from")
    made.wait_workers(2, generation=2)
    assert client.ask(b"a", 2) == b"*A"
    made.send(signal.SIGHUP)
    made.wait_workers(2, generation=3)


def test_new_configuration_takes_effect(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE])
    running.write_config({"services": [WHERE], "workers": {"count": 3}})
    upgrade(running)
    running.wait_workers(3, generation=2)


@pytest.mark.parametrize("rounds", [2])
def test_descriptors_are_as_before(daemon: Callable[..., Daemon], rounds: int) -> None:
    running = daemon(services=[WHERE])
    client = running.client(running.address("mine"))
    pid_of(client)
    before = len(descriptors(running.workers()[0].pid))
    for turn in range(rounds):
        upgrade(running)
        running.wait_workers(2, generation=turn + 2)
    eventually(lambda: running.other_descriptors() == running._base, 2)
    assert len(descriptors(running.workers()[1].pid)) <= before


def test_extra_workers_are_kept(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE])
    running.send(signal.SIGTTIN)
    running.wait_workers(3, generation=1)
    upgrade(running)
    running.wait_workers(3, generation=2)
    running.send(signal.SIGTTOU)
    running.wait_workers(2, generation=2)


def test_twice_in_a_row(daemon: Callable[..., Daemon]) -> None:
    """The second is refused while the first is under way."""
    running = daemon(services=[WHERE])
    running.send(signal.SIGUSR2)
    running.wait_log("trial run")
    running.send(signal.SIGUSR2)
    running.wait_log("upgrade refused")
    running.wait_log("reload done")
    running.wait_workers(2, generation=2)
    assert running.count_log("upgraded from") == 1
    running.expect("upgrade refused: a start, reload, stop or upgrade is in progress")


def test_relative_configuration_path(make_daemon: Callable[[Config], Daemon]) -> None:
    """And a working directory that is another."""
    made = make_daemon({"services": [WHERE], "master": {"working_directory": "/"}})
    made.start("--config", "epolld.yaml")
    assert os.readlink(f"/proc/{made.pid}/cwd") == "/"
    for generation in (2, 3):
        upgrade(made)
        made.wait_workers(2, generation=generation)
    assert os.readlink(f"/proc/{made.pid}/cwd") == "/"


def test_pid_file_stays_right_and_locked(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE])
    file = running.runtime / "epolld.pid"
    before = file.stat().st_ino
    upgrade(running)
    running.wait_workers(2, generation=2)
    assert file.read_text() == f"{running.pid}\n"
    assert file.stat().st_ino == before
    with open(file) as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    running.stop()
    assert not file.exists()


def test_systemd_is_still_told(make_daemon: Callable[[Config], Daemon], tmp_path: Path) -> None:
    made = make_daemon({"services": [WHERE]})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(8)
        made.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        made.start()

        def hear(word: bytes) -> bytes:
            while word not in (message := manager.recv(4096)):
                pass
            return message

        hear(b"READY=1")
        for generation in (b"generation 2", b"generation 3"):
            made.send(signal.SIGUSR2)
            hear(b"RELOADING=1")
            assert generation in hear(b"READY=1")
        made.wait_workers(2, generation=3)
        made.send(signal.SIGTERM)
        hear(b"STOPPING=1")
        made.wait_exit()


def test_in_the_background(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    log = made.directory / "log"
    made.write_config(
        {"services": [WHERE], "logging": {"target": "file", "file": str(log)}},
    )
    made.launch("--daemonize", "--config", "epolld.yaml")
    assert made.wait_exit() == 0, made.lines
    pid = int((made.runtime / "epolld.pid").read_text())
    made.adopt_session(os.getsid(pid))
    for count in (1, 2):
        os.kill(pid, signal.SIGUSR2)
        eventually(lambda count=count: log.read_text().count("reload done") == count, 8)
        made.wait_workers(2, generation=count + 1)
    assert int((made.runtime / "epolld.pid").read_text()) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {os.devnull}
    os.kill(pid, signal.SIGTERM)
    wait_ended(pid)
    assert " error " not in log.read_text()


# -- the trial fails ---------------------------------------------------------------------------


def refused(running: Daemon, client: Client, reason: str) -> None:
    """USR2 changes nothing, and the log says why."""
    before = pids(running)
    count = len(descriptors(running.pid))
    running.send(signal.SIGUSR2)
    running.wait_log(f"upgrade failed: .*{reason}", 8)
    assert pids(running) == before
    assert client.ask(b"a") == b"A"
    assert len(descriptors(running.pid)) == count
    assert not running.find_log("upgrade: executing")
    running.expect("upgrade failed")


def test_broken_configuration(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    assert client.ask(b"a") == b"A"
    running.write_text("nonsense: 1\n")
    refused(running, client, "nonsense")


def test_broken_user_code(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({"services": [*USER["services"], {"name": "upper", "bind": "127.0.0.1:0"}]})
    made.write_module("mine", "from movable import Where as P\n")
    made.start()
    client = made.client(made.address("upper"))
    assert client.ask(b"a") == b"A"
    made.write_module("mine", "1 / 0\n")
    refused(made, client, "ZeroDivisionError")


@pytest.mark.parametrize("module", ["cli", "config/schema", "master/upgrade"])
def test_broken_program(copied: tuple[Daemon, Path], module: str) -> None:
    made, package = copied
    made.start()
    client = made.client()
    assert client.ask(b"a") == b"A"
    (package / f"{module}.py").write_text("raise ImportError('broken program')\n")
    refused(made, client, "broken program")


@pytest.mark.parametrize("module", ["master/master", "worker/worker", "host/limits"])
def test_broken_program_where_check_does_not_look(copied: tuple[Daemon, Path], module: str) -> None:
    made, package = copied
    made.start()
    client = made.client()
    assert client.ask(b"a") == b"A"
    (package / f"{module}.py").write_text("raise ImportError('broken program')\n")
    made.send(signal.SIGUSR2)
    made.wait_log("broken program", 8)
    made.wait_log("upgrade failed", 1)
    made.expect("upgrade failed")


def test_a_program_that_dropped_a_setting(copied: tuple[Daemon, Path]) -> None:
    """Which nobody has used."""
    made, package = copied
    made.start()
    client = made.client()
    assert client.ask(b"a") == b"A"
    for file in package.rglob("*.py"):
        file.write_text(file.read_text().replace("recycle_memory", "recycle_rss"))
    made.send(signal.SIGUSR2)
    assert not made.wait_log("reload done|upgrade failed: the trial|^epolld: ").startswith("epolld")
    assert client.ask(b"a") == b"A"
    made.allow("upgrade failed")


# -- what fails after it -----------------------------------------------------------------------


def test_configuration_breaks_between_trial_and_execution(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    """The adopted workers go on, and a later HUP works."""
    made = make_daemon(USER)
    made.write_module("mine", "from movable import Where as P\n")
    made.start()
    good = made.config_file.read_text()
    client = made.client(made.address("mine"))
    old = pid_of(client)
    made.write_module(
        "mine",
        f"import os\nfrom movable import Where as P\nif {IN_TRIAL}:\n"
        f"    open({str(made.config_file)!r}, 'w').write('nonsense: 1')\n",
    )
    upgrade(made, ok=False)
    made.expect("reload failed", "nonsense")
    made.allow("services")
    assert pid_of(client) == old
    assert len(made.wait_workers(2, generation=1)) == 2
    made.write_text(good)
    made.reload()
    made.wait_workers(2, generation=2)
    assert pid_of(client) in pids(made, 2)


def test_new_workers_cannot_boot_after_the_execution(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    made = make_daemon(USER)
    made.write_module("mine", "from movable import Where as P\n")
    made.start()
    client = made.client(made.address("mine"))
    old = pid_of(client)
    made.write_module(
        "mine", f"import os\nfrom movable import Where as P\nif not {IN_TRIAL}:\n    1 / 0\n"
    )
    upgrade(made, ok=False)
    made.expect("reload failed", "ZeroDivisionError")
    made.allow("exited with status")
    assert pid_of(client) == old
    made.wait_workers(2, generation=1)
    # An adopted worker that dies is replaced, once the code is right again.
    made.write_module("mine", "from movable import Where as P\n")
    victim = next(pid for pid in pids(made) if pid != old)
    os.kill(victim, signal.SIGKILL)
    made.wait_log(rf"pid {victim}, .* killed by SIGKILL")
    made.expect("SIGKILL")
    made.allow("next try")
    assert victim not in {worker.pid for worker in made.wait_workers(2, generation=1)}
    made.reload()
    made.wait_workers(2, generation=3)
    assert pid_of(client) in pids(made, 3)


# -- other signals meanwhile -------------------------------------------------------------------

SLOW_TRIAL = f"""import os, time
from movable import Where as P
if {IN_TRIAL}:
    time.sleep(%g)
"""


WAITING = f"""import os, time
from movable import Where as P
if {IN_TRIAL}:
    while not os.path.exists("trial"):
        time.sleep(0.01)
elif os.path.exists("slow"):
    open(f"boots-{{os.getpid()}}", "w").close()
    while os.path.exists("slow"):
        time.sleep(0.01)
"""


def test_hup_during_the_trial(make_daemon: Callable[[Config], Daemon]) -> None:
    """Both are done, or the upgrade says why not."""
    made = make_daemon(USER)
    made.write_module("mine", SLOW_TRIAL % 0.3)
    made.start()
    client = made.client(made.address("mine"))
    pid_of(client)
    made.send(signal.SIGUSR2)
    made.wait_log("trial run")
    made.send(signal.SIGHUP)
    made.wait_log("reload done")
    made.wait_log("upgraded from|upgrade failed: a reload", 8)
    made.allow("upgrade failed: a reload")
    eventually(lambda: len({w.generation for w in made.workers()}) == 1, 8)
    assert pid_of(client) in pids(made)


def test_term_during_the_trial(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(USER)
    made.write_module("mine", SLOW_TRIAL % 20)
    made.start()
    made.send(signal.SIGUSR2)
    made.wait_log("trial run")
    eventually(lambda: any("--check" in title(pid) for pid in made.processes()))
    assert made.stop() == 0
    eventually(lambda: not made.processes(), 1)


def test_term_right_before_the_execution(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE])
    running.send(signal.SIGUSR2)
    running.wait_log("upgrade: executing")
    running.send(signal.SIGTERM)
    assert running.wait_exit(2) == 0
    running.allow("reload failed", "told to stop before it was ready")


def test_term_during_the_execution(daemon: Callable[..., Daemon]) -> None:
    """Held back until the new program listens."""
    running = daemon(services=[WHERE])
    client = running.client(running.address("mine"))
    pid_of(client)
    running.send(signal.SIGUSR2)
    running.wait_log("upgrade: executing")
    # The scoreboard's descriptors survive the execve, the pipe of the signals does not.
    eventually(lambda: "anon_inode:[eventpoll]" not in descriptors(running.pid).values())
    running.send(signal.SIGTERM)
    client.close()
    assert running.wait_exit() == 0
    running.allow("reload failed", "told to stop before it was ready")


def test_hup_while_the_trial_goes_on(make_daemon: Callable[[Config], Daemon]) -> None:
    """A reload that is not done when the trial is: it goes on, and the upgrade waits for another
    signal."""
    made = make_daemon(USER)
    made.write_module("mine", WAITING)
    made.start()
    client = made.client(made.address("mine"))
    pid_of(client)
    (made.directory / "slow").touch()
    made.send(signal.SIGUSR2)
    made.wait_log("trial run")
    made.send(signal.SIGHUP)
    eventually(lambda: len(list(made.directory.glob("boots-*"))) == 2, what="two new workers boot")
    (made.directory / "trial").touch()
    made.wait_log("upgrade failed: a reload has begun meanwhile", 8)
    made.expect("upgrade failed: a reload")
    (made.directory / "slow").unlink()
    made.wait_log("reload done", 8)
    assert pid_of(client) in {worker.pid for worker in made.wait_workers(2, generation=2)}


# -- the interpreter is gone ---------------------------------------------------------------------


@pytest.fixture
def fragile(make_daemon: Callable[[Config], Daemon], tmp_path: Path) -> tuple[Daemon, Path]:
    """A daemon whose interpreter can be taken away: an environment that is made of links."""
    home, real = tmp_path / "environment", Path(sys.prefix)
    python = home / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(real / "pyvenv.cfg", home)
    (home / "lib").symlink_to(real / "lib")
    python.symlink_to(os.path.realpath(sys.executable))
    made = make_daemon(USER)
    made.write_module("mine", "from movable import Where as P\n")
    made.command[0] = str(python)
    return made, python


@pytest.mark.parametrize("when", ["before the trial", "after the trial"])
def test_the_interpreter_is_gone(fragile: tuple[Daemon, Path], when: str) -> None:
    """As when a package is upgraded beside the daemon: it goes on, and says why."""
    made, python = fragile
    made.start()
    client = made.client(made.address("mine"))
    old = pid_of(client)
    where = os.readlink(python)
    if when == "before the trial":
        python.unlink()
        verb = "run"
    else:
        made.write_module(
            "mine",
            "import os\nfrom movable import Where as P\n"
            f"if {IN_TRIAL}:\n    os.unlink({str(python)!r})\n",
        )
        verb = "execute"
    count = len(descriptors(made.pid))
    made.send(signal.SIGUSR2)
    made.wait_log(f"upgrade failed: cannot {verb} .*No such file", 8)
    made.expect("upgrade failed")
    assert pid_of(client) == old
    assert len(made.wait_workers(2, generation=1)) == 2
    eventually(lambda: len(descriptors(made.pid)) == count)
    python.symlink_to(where)
    made.write_module("mine", "from movable import Where as P\n")
    made.send(signal.SIGUSR2)
    made.wait_log("reload done", 10)
    assert pid_of(client) in {worker.pid for worker in made.wait_workers(2, generation=2)}
