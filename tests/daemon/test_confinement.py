"""no_new_privs, capabilities, rlimits, chroot: what a worker may, and what not."""

import pwd
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest
from harness import Client, Config, Daemon, upper_at
from processes import status
from test_become_user import interpreter_for_all

from epolld.config.guard import CAPABILITIES

TELLS: Config = {"name": "tells", "protocol": "confined:Tells", "bind": "127.0.0.1:0"}


def ask(client: Client, what: bytes) -> bytes:
    """One question, one line."""
    client.sock.sendall(what)
    return client.line()


def bits(*names: str) -> int:
    """The mask of capabilities."""
    return sum(1 << CAPABILITIES.index(name) for name in names)


def test_no_new_privs(daemon: Callable[..., Daemon]) -> None:
    running = daemon(master={"no_new_privs": True})
    for pid in (running.pid, *(worker.pid for worker in running.wait_workers(2))):
        assert status(pid)["NoNewPrivs"] == "1"


def test_capabilities_that_are_asked_for_and_no_others(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    interpreter_for_all()
    asked = ["CAP_NET_RAW", "CAP_KILL"]
    running = daemon(services=[TELLS], master={"user": "nobody", "capabilities": asked})
    for worker in running.wait_workers(2):
        facts = status(worker.pid)
        assert facts["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            assert int(facts[kind], 16) == bits(*asked), kind
        for kind in ("CapInh", "CapAmb"):
            assert int(facts[kind], 16) == 0, kind
    assert ask(running.client(), b"become_root") == b"PermissionError"


def test_what_systemd_gives_the_master_does_not_reach_workers(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    """As its unit does: another user, with the right to bind ports below 1024."""
    needs.root()
    interpreter_for_all()
    setpriv = needs.tool("setpriv", "util-linux")
    made = make_daemon({"services": [upper_at()]})
    made.directory.chmod(0o777)
    made.command = [
        *(setpriv, "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"),
        *("--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"),
        *made.command,
    ]
    made.start()
    assert int(status(made.pid)["CapEff"], 16) == bits("CAP_NET_BIND_SERVICE")
    for worker in made.wait_workers(2):
        facts = status(worker.pid)
        for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(facts[kind], 16) == 0, kind


def test_a_program_that_is_executed_inherits_nothing(daemon: Callable[..., Daemon]) -> None:
    """All is close-on-exec: listeners, connections, channel, scoreboard, table of clients."""
    running = daemon(services=[{**TELLS, "limits": {"client_connections": 100}}])
    running.reload()
    clients = [running.client() for _ in range(3)]
    for client in clients:
        assert ask(client, b"inherited").split() in ([b"0", b"1", b"2"], [b"0", b"1", b"2", b"3"])


def test_limits_of_the_kernel(daemon: Callable[..., Daemon]) -> None:
    limits = {"core": 0, "open_files": 500, "file_size": "1m", "address_space": "4g"}
    running = daemon(workers={"rlimits": limits})
    for worker in running.wait_workers(2):
        for number, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, 500),
            (resource.RLIMIT_FSIZE, 1 << 20),
            (resource.RLIMIT_AS, 4 << 30),
        ):
            assert resource.prlimit(worker.pid, number) == (value, value)
    assert running.client().ask(b"a") == b"A"


def test_no_more_processes(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    interpreter_for_all()
    running = daemon(
        services=[TELLS], master={"user": "nobody"}, workers={"rlimits": {"processes": 0}}
    )
    assert ask(running.client(), b"fork") == b"BlockingIOError"


def test_a_limit_that_cannot_be(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({"workers": {"rlimits": {"open_files": 2**31 - 1}}})
    made.launch()
    assert made.wait_exit() != 0
    made.wait_log("workers.rlimits.open_files: cannot be 2147483647")
    made.allow(".")


def test_chroot(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    needs.root()
    interpreter_for_all()
    jail = tmp_path / "jail"
    (jail / "only this").mkdir(parents=True)
    running = daemon(services=[TELLS], master={"user": "nobody", "chroot": str(jail)})
    for generation in (1, 2):
        for worker in running.wait_workers(2, generation=generation):
            facts = status(worker.pid)
            assert int(facts["CapPrm"], 16) == int(facts["CapEff"], 16) == 0
        client = running.client()
        assert ask(client, b"root") == b"only this"
        assert ask(client, b"escape") == b"PermissionError"
        assert int(ask(client, b"whoami")) == pwd.getpwnam("nobody").pw_uid
        client.close()
        if generation == 1:
            running.reload()


def test_a_chroot_that_is_not_there(make_daemon: Callable[[Config], Daemon]) -> None:
    needs.root()
    made = make_daemon({"master": {"chroot": "/no/such/directory"}})
    made.launch()
    assert made.wait_exit() != 0
    made.wait_log("master.chroot: /no/such/directory: No such file")
    made.allow(".")


@pytest.mark.parametrize(
    ("master", "problem"),
    [
        ({"capabilities": ["CAP_SYS_ADMIN"]}, "CAP_SYS_ADMIN is as much as being root"),
        ({"capabilities": "CAP_NET_RAM"}, "did you mean 'CAP_NET_RAW'"),
    ],
)
def test_wrong_capabilities(
    make_daemon: Callable[[Config], Daemon], master: dict[str, Any], problem: str
) -> None:
    made = make_daemon({"master": master})
    made.launch()
    assert made.wait_exit() == 78
    assert problem in "\n".join(made.lines)
    made.allow(".")
