"""The control socket's file: where it is, how it is made, and who may speak over it.

Whoever may speak here commands the daemon. Two fences, each enough by itself: the file's mode, and
the kernel's word about who connected (SO_PEERCRED). Refuses to know what is said.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from epolld.address import MAX_UNIX_PATH
from epolld.errors import AlreadyRunningError, PathError
from epolld.host import runtimedir

NAME = "control.sock"
BACKLOG = 64  # clients that wait to be accepted; more are told to try again by the kernel

ALONE = 0o177  # umask: the daemon's own user, read and write
WITH_GROUP = 0o117  # the group, too

MAX_GROUPS = 256  # of a client that are looked at: Python's getsockopt takes 1024 bytes at most
SO_PEERGROUPS = 59  # <asm-generic/socket.h>, since Linux 4.13; not in Python's socket module


class ControlSocket(NamedTuple):
    """The listening socket, and the file that it made (device and inode, to know it again)."""

    sock: socket.socket
    path: str
    inode: tuple[int, int]

    def remove(self) -> None:
        """Close it for good; the file goes, unless it is another's by now."""
        self.sock.close()
        with contextlib.suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self.inode:
                os.unlink(self.path)


class Peer(NamedTuple):
    """Who is at the other end, by the kernel."""

    pid: int
    uid: int
    groups: frozenset[int]  # the primary one and all others

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


def open_socket(directory: str, group: int | None) -> ControlSocket:
    """Make the control socket in `directory`, for the daemon's user and maybe a group.

    Replaces what a dead daemon left. Raises AlreadyRunningError if a living one listens there,
    PathError if it cannot be made.
    """
    path = os.path.join(directory, NAME)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = False
    try:
        sock.setblocking(False)
        # bind(2) makes the file with the mode that the umask leaves, so it is never wider than
        # it shall be, as it would be with a chmod afterwards.
        before = os.umask(ALONE if group is None else WITH_GROUP)
        try:
            _at(path, sock.bind)
        finally:
            os.umask(before)
        made = True
        if group is not None:
            os.lchown(path, -1, group)
        found = os.lstat(path)
        sock.listen(BACKLOG)  # only now can anybody connect
    except OSError as error:
        sock.close()
        if made:
            os.unlink(path)
        raise PathError(
            f"{path}: cannot make the control socket: {error.strerror or error}; "
            "see master.runtime_directory and master.control_group"
        ) from error
    return ControlSocket(sock, path, (found.st_dev, found.st_ino))


def open_to(directory: str, group: int) -> bool:
    """Whether the members of `group` can get into the directory at all."""
    found = os.stat(directory)
    return bool(
        found.st_mode & stat.S_IXOTH or (found.st_mode & stat.S_IXGRP and found.st_gid == group)
    )


def connect(path: str, timeout: float | None) -> socket.socket:
    """A connection to the daemon that listens at `path`, within `timeout` seconds. Raises OSError.

    0: at once or not at all. A full queue is waited for, as it would not be with the socket's own
    time-out, for which it is non-blocking.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(timeout != 0)
        if timeout:
            limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            _at(path, sock.connect)
        except BlockingIOError:
            if timeout:
                raise TimeoutError("the queue of the control socket is full") from None
            raise
        sock.settimeout(timeout)
    except BaseException:
        sock.close()
        raise
    return sock


def candidates(environ: Mapping[str, str], uid: int) -> list[str]:
    """Where a daemon's control socket may be that this user could mean; the likeliest first."""
    directories = [
        runtimedir.find(None, environ, uid),
        "/run/epolld",  # the system's; also when a shell of root's has an XDG_RUNTIME_DIR
        runtimedir.find(None, {k: v for k, v in environ.items() if k == "TMPDIR"}, uid),
    ]
    return [os.path.join(directory, NAME) for directory in dict.fromkeys(directories)]


def peer_of(sock: socket.socket) -> Peer:
    """Who has connected; raises OSError."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack(
        "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    groups = array.array("I")
    with contextlib.suppress(OSError):  # ERANGE: more than fit here, then only the primary counts
        groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_GROUPS * 4))
    return Peer(pid, uid & 0xFFFFFFFF, frozenset({gid & 0xFFFFFFFF, *groups}))


def may_command(peer: Peer, owner: int, group: int | None) -> bool:
    """Whether this peer commands the daemon: root, the daemon's user, the configured group."""
    return peer.uid in (0, owner) or (group is not None and group in peer.groups)


def _remove_stale(path: str) -> None:
    """Remove what a dead daemon left; refuse to touch anything else."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # nothing there; or bind will say what is wrong with the path
    if not stat.S_ISSOCK(found.st_mode):
        raise PathError(f"{path}: there is something else than a socket; remove it")
    try:
        connect(path, 0).close()
    except ConnectionRefusedError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    except OSError:
        pass  # EAGAIN: its queue is full, so somebody listens
    raise AlreadyRunningError(
        f"{path}: another epolld is commanded through this socket; stop it, or give this one a "
        "master.runtime_directory of its own"
    )


def _at(path: str, call: Callable[[str], object]) -> None:
    """Bind or connect at a path of any length: the kernel takes MAX_UNIX_PATH bytes."""
    if len(os.fsencode(path)) <= MAX_UNIX_PATH:
        call(path)
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
