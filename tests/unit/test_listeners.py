"""Listening sockets: real ones, on loopback and in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import select
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from epolld.address import Address, FdAddress, TcpAddress, UnixAddress
from epolld.config import Service
from epolld.errors import BindError
from epolld.host.listeners import Inherited, Listener, open_listeners, tune
from epolld.host.systemd import InheritedSocket

NONE = Inherited([])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def service(*bind: Address, name: str = "echo", **settings) -> Service:
    return Service(name=name, bind=bind, **settings)


def opened(*bind: Address, **settings) -> tuple[Listener, ...]:
    return open_listeners([service(*bind, **settings)], {}, NONE)


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


@contextlib.contextmanager
def listening(*bind: Address, **settings) -> Iterator[tuple[Listener, ...]]:
    """Open, and remove at the end."""
    listeners = opened(*bind, **settings)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.remove()


def connect(listener: Listener) -> None:
    """A client gets through."""
    with socket.socket(listener.sock.family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(listener.sock.getsockname())
        listener.sock.accept()[0].close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


# -- TCP ---------------------------------------------------------------------------------------


def test_v4_with_a_port_of_the_kernels_choice() -> None:
    with listening(TcpAddress("127.0.0.1", 0)) as (listener,):
        connect(listener)
        host, _, port = str(listener).rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) == listener.sock.getsockname()[1] != 0
        assert not listener.sock.getblocking()
        assert not listener.sock.get_inheritable()


def test_v6_only_or_not() -> None:
    for v6only in (True, False):
        with listening(TcpAddress("::", 0), v6only=v6only) as (listener,):
            connect(listener)
            assert str(listener).startswith("[::]:")
            option = listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            assert option == v6only


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, 1, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [*found, found[0]])
    with listening(TcpAddress("two.example", 0)) as listeners:
        assert [each.sock.getsockname()[0] for each in listeners] == ["127.0.0.1", "127.0.0.2"]
        assert len({each.key for each in listeners}) == 2


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(BindError, match=r"cannot resolve 'no\.such\.invalid'"):
        opened(TcpAddress("no.such.invalid", 80))


def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(BindError):
        opened(TcpAddress("a" * 70 + ".example", 80))


def test_a_port_in_use_names_the_service_and_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            BindError, match=rf"services\.echo: cannot bind 127\.0\.0\.1:{port}.*ss -l"
        ):
            opened(TcpAddress("127.0.0.1", port))


def test_options_are_set_and_inherited_by_connections() -> None:
    with (
        listening(TcpAddress("127.0.0.1", 0), nodelay=True, keepalive=True) as (listener,),
        socket.create_connection(listener.sock.getsockname()),
        listener.sock.accept()[0] as sock,
    ):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_tune_turns_options_off_again() -> None:
    with listening(TcpAddress("127.0.0.1", 0), nodelay=True) as (listener,):
        changed = service(listener.address, nodelay=False, keepalive=False)
        tune(Listener(listener.key, listener.address, changed, listener.sock))
        assert not listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_reuseport_lets_two_listen() -> None:
    with listening(TcpAddress("127.0.0.1", 0), reuseport=True) as (first,):
        port = first.sock.getsockname()[1]
        with listening(TcpAddress("127.0.0.1", port), reuseport=True) as (second,):
            assert second.sock.getsockname()[1] == port


def test_no_descriptor_left_is_a_bind_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(BindError):
            opened(TcpAddress("127.0.0.1", 0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- Unix --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_the_mode_is_exact_whatever_the_umask(path: str, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with listening(UnixAddress(path, mode=mode)) as (listener,):
            assert stat.S_IMODE(os.lstat(path).st_mode) == mode
            assert os.umask(0o077) == 0o077
            connect(listener)
    finally:
        os.umask(before)


def test_the_mode_is_right_from_the_first_moment(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = socket.socket.listen

    def listen(sock: socket.socket, backlog: int) -> None:
        modes.append(stat.S_IMODE(os.lstat(path).st_mode))
        real(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", listen)
    monkeypatch.setattr(os, "chmod", lambda *a, **k: pytest.fail("too late"))
    with listening(UnixAddress(path, mode=0o600)):
        assert set(modes) == {0o600}


def test_without_a_mode_the_umask_decides(path: str) -> None:
    before = os.umask(0o027)
    try:
        with listening(UnixAddress(path)):
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o750
    finally:
        os.umask(before)


@needs_root
def test_owner_and_group_by_name_and_number(path: str) -> None:
    nobody = pwd.getpwnam("nobody")
    with listening(UnixAddress(path, owner="nobody", group=str(nobody.pw_gid))):
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (nobody.pw_uid, nobody.pw_gid)


def test_an_unknown_owner_is_refused_and_leaves_no_file(path: str) -> None:
    with pytest.raises(BindError, match="nosuchuser"):
        opened(UnixAddress(path, owner="nosuchuser"))
    assert not os.path.lexists(path)


def test_an_impossible_owner_is_refused_and_leaves_no_file(path: str) -> None:
    with pytest.raises(BindError):
        opened(UnixAddress(path, owner="99999999999"))
    assert not os.path.lexists(path)


def test_a_stale_socket_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    with listening(UnixAddress(path)) as (listener,):
        connect(listener)


def test_a_live_socket_is_refused_and_left_alone(path: str) -> None:
    with listening(UnixAddress(path)) as (live,):
        with pytest.raises(BindError, match="another program listens"):
            opened(UnixAddress(path))
        live.sock.accept()[0].close()  # the probe
        connect(live)


def test_a_live_socket_with_a_full_queue_is_refused(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as live, contextlib.ExitStack() as clients:
        live.bind(path)
        live.listen(0)
        for _ in range(5):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(path)
        with pytest.raises(BindError, match="another program listens"):
            opened(UnixAddress(path))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_something_else_is_refused_and_left_alone(path: str, kind: str) -> None:
    if kind == "file":
        Path(path).write_text("precious")
    elif kind == "folder":
        os.mkdir(path)
    else:
        os.symlink("/nowhere", path)
    before = os.lstat(path)
    with pytest.raises(BindError, match="something else than a socket"):
        opened(UnixAddress(path))
    assert os.lstat(path) == before


def test_a_missing_folder_is_told(path: str) -> None:
    with pytest.raises(BindError, match="directory does not exist"):
        opened(UnixAddress(path + "/x/s"))


def test_an_abstract_name_leaves_no_file(tmp_path: Path) -> None:
    name = f"@epolld-test-{os.getpid()}"
    with listening(UnixAddress(name)) as (listener,):
        connect(listener)
        assert str(listener) == f"unix:{name}"
        with pytest.raises(BindError, match="another program listens"):
            opened(UnixAddress(name))


def test_remove_takes_the_file_along_and_close_does_not(path: str) -> None:
    (listener,) = opened(UnixAddress(path))
    listener.close()
    assert os.path.lexists(path)
    listener.remove()
    assert not os.path.lexists(path)


def test_remove_leaves_a_successors_file_alone(path: str) -> None:
    (ours,) = opened(UnixAddress(path))
    os.rename(path, path + ".old")  # keeps the inode's number taken
    with listening(UnixAddress(path)) as (theirs,):
        ours.remove()
        connect(theirs)


def test_a_second_remove_does_nothing(path: str) -> None:
    (listener,) = opened(UnixAddress(path))
    os.link(path, path + ".same")
    listener.remove()
    assert not os.path.lexists(path)
    os.rename(path + ".same", path)  # a successor whose file got the same inode number
    listener.remove()
    assert os.path.lexists(path)


# -- kept, inherited, all or nothing -----------------------------------------------------------


def test_reopening_keeps_sockets_by_key(path: str) -> None:
    bind = [TcpAddress("127.0.0.1", 0), UnixAddress(path)]
    with listening(*bind) as old:
        changed = service(*bind, backlog=7)
        new = open_listeners([changed], {each.key: each for each in old}, NONE)
        assert [each.sock for each in new] == [each.sock for each in old]
        assert [each.inode for each in new] == [each.inode for each in old]
        assert all(each.service is changed for each in new)


def test_a_kept_socket_keeps_the_clients_that_wait_in_it() -> None:
    address = TcpAddress("127.0.0.1", 0)
    with listening(address) as (old,), socket.create_connection(old.sock.getsockname()):
        (new,) = open_listeners([service(address)], {old.key: old}, NONE)
        tune(new)
        new.sock.accept()[0].close()


def test_all_or_nothing(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = TcpAddress("127.0.0.1", other.getsockname()[1])
        kept_address = TcpAddress("127.0.0.1", 0)
        with listening(kept_address) as (kept,):
            before = set(os.listdir("/proc/self/fd"))
            with pytest.raises(BindError):
                open_listeners(
                    [service(kept_address, UnixAddress(path)), service(taken, name="b")],
                    {kept.key: kept},
                    NONE,
                )
            assert set(os.listdir("/proc/self/fd")) == before
            assert not os.path.lexists(path)
            connect(kept)


@pytest.fixture
def inherited_fd() -> Iterator[int]:
    """A listening descriptor as another program would pass it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = sock.detach()
    yield fd
    with contextlib.suppress(OSError):
        os.close(fd)


def release(inherited: Inherited) -> None:
    """Close what it holds."""
    inherited.close_all_but([])


def test_fd_is_used_again_and_again(inherited_fd: int) -> None:
    inherited = Inherited([])
    address = FdAddress(inherited_fd)
    (first,) = open_listeners([service(address)], {}, inherited)
    (second,) = open_listeners([service(address)], {}, inherited)
    assert first.sock is second.sock
    assert first.sock in inherited
    assert not first.sock.getblocking()
    assert not os.get_inheritable(inherited_fd)
    connect(first)
    release(inherited)


def test_systemds_socket_is_found_by_address(inherited_fd: int) -> None:
    inherited = Inherited([InheritedSocket(inherited_fd, "other.socket")])
    host, port = socket.socket(fileno=os.dup(inherited_fd)).getsockname()
    (listener,) = open_listeners([service(TcpAddress(host, port))], {}, inherited)
    assert listener.sock.fileno() == inherited_fd
    assert inherited.unused([listener]) == []
    release(inherited)


def test_systemds_socket_is_found_by_name(inherited_fd: int) -> None:
    inherited = Inherited([InheritedSocket(inherited_fd, "echo")])
    assert inherited.unused([]) == ["echo"]
    (listener,) = open_listeners([service(TcpAddress("127.0.0.1", 9))], {}, inherited)
    assert listener.sock.fileno() == inherited_fd
    release(inherited)


def test_a_failure_leaves_inherited_sockets_open(inherited_fd: int, path: str) -> None:
    Path(path).touch()
    inherited = Inherited([])
    with pytest.raises(BindError):
        open_listeners([service(FdAddress(inherited_fd), UnixAddress(path))], {}, inherited)
    os.fstat(inherited_fd)
    release(inherited)


def test_fd_that_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="not an open socket"):
        opened(FdAddress(9999))
    with open(tmp_path / "f", "w") as file, pytest.raises(BindError, match="not an open socket"):
        opened(FdAddress(file.fileno()))
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            with pytest.raises(BindError, match="not a listening stream socket"):
                opened(FdAddress(sock.fileno()))
            os.fstat(sock.fileno())


def test_of_many_starts_one_replaces_the_dead_socket(path: str) -> None:
    """Each finds it dead at first; nobody removes the socket of the one that was quicker."""
    for _ in range(5):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        ends, hold = os.pipe()
        pids = [_start_server(path, ends, hold) for _ in range(8)]
        os.close(ends)
        codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in pids[1:]]
        os.close(hold)  # now the winner may go
        codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
        assert codes == [*[1] * 7, 0]


def _start_server(path: str, ends: int, hold: int) -> int:
    """A process that listens until `hold` is closed; status 0 if it was there to the end."""
    pid = os.fork()
    if pid:
        return pid
    status = 2
    try:
        os.close(hold)
        with listening(UnixAddress(path)), socket.socket(socket.AF_UNIX) as client:
            select.select([ends], [], [], 10)
            client.connect(path)
            status = 0
    except BindError:
        status = 1
    finally:
        os._exit(status)
