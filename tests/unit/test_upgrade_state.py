"""master/upgrade.py: what the next program is told survives, and nonsense is refused."""

import contextlib
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from epolld.channel import Channel
from epolld.errors import EpolldError
from epolld.host.children import Child
from epolld.master import upgrade
from epolld.master.pool import State, WorkerHandle
from epolld.master.upgrade import FORMAT, VARIABLE, SavedListener, SavedMaster, SavedWorker

CONFIG = "services:\n- {name: upper, bind: '127.0.0.1:0'}\n"


def make(**changes: object) -> SavedMaster:
    """A master with one listener and two workers."""
    state = SavedMaster(
        format=FORMAT,
        pid=os.getpid(),
        version="1.0",
        configs={"3": CONFIG, "2": CONFIG},
        generation=3,
        last_number=5,
        extra_workers=1,
        suspended=False,
        listeners=[SavedListener("tcp 127.0.0.1:0", "upper", 0, 10, None)],
        inherited=[(10, "web"), (11, "other")],
        workers=[
            SavedWorker(0, 0, 100, 20, 21, 3, "ready", 1.5),
            SavedWorker(0, 1, 99, 22, 23, 2, "draining", 60.0),
        ],
        scoreboard=30,
        scoreboard_layout=[512, 0, 1, 2, 3, 4],
        pidfile="/run/epolld.pid",
        pidfile_fd=31,
        directory="/",
    )
    return msgspec.structs.replace(state, **changes)


@pytest.fixture
def saved(request: pytest.FixtureRequest) -> Iterator[int]:
    fd = upgrade.save(make(**getattr(request, "param", {})))
    yield fd
    with contextlib.suppress(OSError):  # restore has closed it
        os.close(fd)


def test_it_comes_back_as_it_was(saved: int) -> None:
    assert upgrade.restore({VARIABLE: str(saved)}) == make()


def test_the_descriptor_survives_an_execve_and_not_the_restore(saved: int) -> None:
    assert os.get_inheritable(saved)
    upgrade.restore({VARIABLE: str(saved)})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(saved)


def test_a_large_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in pieces where the kernel takes only pieces."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:1000]))
    state = make(workers=[SavedWorker(n, n, n, n, n, 3, "ready", 0.0) for n in range(500)])
    fd = upgrade.save(state)
    assert upgrade.restore({VARIABLE: str(fd)}) == state


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}])
def test_an_ordinary_start(environ: dict[str, str]) -> None:
    assert upgrade.restore(environ) is None


@pytest.mark.parametrize("saved", [{"pid": 1}], indirect=True)
def test_meant_for_another_process(saved: int) -> None:
    """A child that has the variable by inheritance is no upgraded master."""
    assert upgrade.restore({VARIABLE: str(saved)}) is None


@pytest.mark.parametrize("saved", [{"format": FORMAT + 1}], indirect=True)
def test_another_format_is_refused(saved: int) -> None:
    with pytest.raises(EpolldError, match=f"format {FORMAT + 1}, expected {FORMAT}"):
        upgrade.restore({VARIABLE: str(saved)})


@pytest.mark.parametrize("text", ["nonsense", "987654"])
def test_a_wrong_variable_is_refused(text: str) -> None:
    with pytest.raises(EpolldError, match=f"cannot read the state .{VARIABLE}={text}"):
        upgrade.restore({VARIABLE: text})


def test_nonsense_in_the_file_is_refused() -> None:
    fd = os.memfd_create("test")
    os.write(fd, b"{}")
    with pytest.raises(EpolldError, match="cannot read the state"):
        upgrade.restore({VARIABLE: str(fd)})


def test_all_descriptors_are_named() -> None:
    assert sorted(upgrade.descriptors(make())) == [10, 10, 11, 20, 21, 22, 23, 30, 31]


def test_configurations_of_each_generation() -> None:
    state = make()
    assert upgrade.restore_config(state).config == upgrade.restore_config(state, 2).config
    assert upgrade.restore_config(state).config.services[0].name == "upper"


def test_inheritable_only_meanwhile() -> None:
    fd = os.memfd_create("test")
    try:
        with upgrade.inheritable([fd]):
            assert os.get_inheritable(fd)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_an_execve_that_fails_leaves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "execve", refuse)
    monkeypatch.setattr(upgrade, "descriptors", lambda _state: [])
    before = set(os.listdir("/proc/self/fd")), os.getcwd()
    with pytest.raises(OSError, match="Permission denied"):
        upgrade.execute(make(), {})
    assert (set(os.listdir("/proc/self/fd")), os.getcwd()) == before


@pytest.mark.parametrize(
    ("told_to_leave", "dismissed"), [(True, True), (True, False), (False, False)]
)
def test_who_was_told_to_leave_is_known_to_the_next_program(
    told_to_leave: bool, dismissed: bool
) -> None:
    """One that was killed before the execve and is reaped after it: whether that was meant so."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    generation: Any = SimpleNamespace(number=3)
    child = Child(100, os.eventfd(0), Channel(ours))
    worker = WorkerHandle(1, 2, child, generation, 50.0)
    worker.state = State.KILLED
    worker.told_to_leave, worker.dismissed = told_to_leave, dismissed
    pool: Any = [worker]
    (saved,) = upgrade.save_workers(pool, 60.0)
    again = msgspec.json.decode(msgspec.json.encode(saved), type=SavedWorker)
    revived = upgrade.revive(again, 2, generation, 70.0)
    assert (revived.told_to_leave, revived.dismissed) == (told_to_leave, dismissed)
    assert (revived.pid, revived.slot, revived.born) == (100, 1, 60.0)
    os.close(child.pidfd)
    ours.detach()
    revived.channel.close()
    theirs.close()
