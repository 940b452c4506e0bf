"""host/controlsocket.py: the file, its rights, and who is at the other end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest

from epolld.errors import AlreadyRunningError, PathError
from epolld.host import controlsocket
from epolld.host.controlsocket import ControlSocket, Peer, may_command, open_socket


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ControlSocket]:
    """An open control socket."""
    opened = open_socket(str(tmp_path), None)
    yield opened
    opened.remove()


def test_only_its_owner_may_connect_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened = open_socket(str(tmp_path), None)
    finally:
        assert os.umask(before) == 0
    assert stat.S_IMODE(os.stat(opened.path).st_mode) == 0o600
    assert not os.get_inheritable(opened.sock.fileno())
    opened.remove()
    assert os.listdir(tmp_path) == []


def test_a_group_is_let_in(tmp_path: Path) -> None:
    needs.root()
    opened = open_socket(str(tmp_path), 60)
    found = os.stat(opened.path)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, os.geteuid(), 60)
    opened.remove()


def test_the_mode_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets in between bind and chmod, for there is no chmod; nor before it listens."""
    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.delattr(os, name, raising=False)
    seen = []
    chown = os.lchown

    def spy(path: str, uid: int, gid: int) -> None:
        seen.append(stat.S_IMODE(os.stat(path).st_mode))
        with pytest.raises(ConnectionRefusedError):
            controlsocket.connect(path, 1)
        chown(path, uid, gid)

    monkeypatch.setattr(os, "lchown", spy)
    open_socket(str(tmp_path), os.getegid()).remove()
    assert seen == [0o660]


def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "control.sock"))
    dead.close()
    opened = open_socket(str(tmp_path), None)
    controlsocket.connect(opened.path, 1).close()
    opened.remove()


def test_a_living_one_is_left_alone(place: ControlSocket, tmp_path: Path) -> None:
    with pytest.raises(AlreadyRunningError, match="runtime_directory"):
        open_socket(str(tmp_path), None)
    controlsocket.connect(place.path, 1).close()


def test_a_living_one_that_is_busy_is_left_alone(tmp_path: Path) -> None:
    """Its queue is full, so that nobody can even connect."""
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(path)
        busy.listen(0)
        with controlsocket.connect(path, 0):
            with pytest.raises(AlreadyRunningError, match="runtime_directory"):
                open_socket(str(tmp_path), None)
            with pytest.raises(TimeoutError, match="queue of the control socket is full"):
                controlsocket.connect(path, 0.05)
    assert os.path.exists(path)


def test_nothing_is_left_if_it_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's number is none that the file system can store, say."""

    def refuse(path: str, uid: int, gid: int) -> None:
        raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))

    monkeypatch.setattr(os, "lchown", refuse)
    with pytest.raises(PathError, match="cannot make the control socket: Value too large"):
        open_socket(str(tmp_path), os.getegid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "control.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(PathError, match="something else than a socket"):
        open_socket(str(tmp_path), None)
    assert path.is_symlink() or path.exists()


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(PathError, match="No such file"):
        open_socket("/nowhere/at/all", None)


def test_what_is_another_daemons_by_now_is_not_removed(place: ControlSocket) -> None:
    os.unlink(place.path)
    other = socket.socket(socket.AF_UNIX)
    other.bind(place.path)
    place.remove()
    assert os.path.exists(place.path)
    other.close()


def test_a_path_of_any_length(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    opened = open_socket(str(folder), None)
    controlsocket.connect(opened.path, 1).close()
    opened.remove()
    assert list(folder.iterdir()) == []


def test_all_groups_of_a_client_count(place: ControlSocket) -> None:
    needs.root()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([7, 60, 70000])
            controlsocket.connect(place.path, 5)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    accepted, _ = place.sock.accept()
    assert controlsocket.peer_of(accepted).groups == {os.getegid(), 7, 60, 70000}
    accepted.close()


def test_the_kernel_says_who_has_connected(place: ControlSocket) -> None:
    client = controlsocket.connect(place.path, 1)
    accepted, _ = place.sock.accept()
    peer = controlsocket.peer_of(accepted)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.groups == {os.getegid(), *os.getgroups()}
    client.close()
    accepted.close()


@pytest.mark.parametrize(
    ("uid", "groups", "group", "allowed"),
    [
        (0, {0}, None, True),
        (500, {500}, None, True),  # the daemon's own
        (501, {501}, None, False),
        (501, {501, 60}, 60, True),
        (501, {501, 61}, 60, False),
        (501, {500}, None, False),  # a group with the daemon's user's number
    ],
)
def test_who_may_command(uid: int, groups: set[int], group: int | None, allowed: bool) -> None:
    assert may_command(Peer(1, uid, frozenset(groups)), 500, group) is allowed


def test_whether_a_group_gets_in_at_all(tmp_path: Path) -> None:
    group = os.stat(tmp_path).st_gid
    for mode, own, other in ((0o700, False, False), (0o710, True, False), (0o701, True, True)):
        tmp_path.chmod(mode)
        assert controlsocket.open_to(str(tmp_path), group) is own
        assert controlsocket.open_to(str(tmp_path), group + 1) is other
    tmp_path.chmod(0o700)


def test_where_it_is_looked_for() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/7", "TMPDIR": "/tmp/mine"}
    assert controlsocket.candidates(environ, 7) == [
        "/run/user/7/epolld/control.sock",
        "/run/epolld/control.sock",
        "/tmp/mine/epolld-7/control.sock",
    ]
    assert controlsocket.candidates({}, 0) == ["/run/epolld/control.sock"]
