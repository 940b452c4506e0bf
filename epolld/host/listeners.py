"""Listening sockets: bound before anything else, kept over reloads, closed last.

Refuses to know who accepts. A socket is known by the address that it was asked for: a reload
that names the address again keeps the socket, with the clients that wait in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping

from epolld.address import Address, FdAddress, TcpAddress, UnixAddress, format_peer
from epolld.config import Service
from epolld.errors import BindError
from epolld.host.systemd import InheritedSocket

# What is fixed when a socket is bound: a reload that changes it for a kept one has no effect.
FIXED = ("reuseport", "v6only")

Place = tuple[int, object]  # address family, and the address as socket.bind takes it

# A start that replaces the socket of a dead server keeps others away meanwhile: so often, so long.
LOCK_TRIES = 50
LOCK_PAUSE = 0.01  # seconds

STORE_PREFIX = "epolld-"  # of names in systemd's descriptor store

# The file of an address such as `unix:/run/x.sock`, to remove only what we made.
Inode = tuple[int, int]  # st_dev, st_ino


class Listener:
    """A listening socket and the service that is to accept from it."""

    __slots__ = ("address", "inode", "key", "service", "sock")

    def __init__(
        self,
        key: str,
        address: Address,
        service: Service,
        sock: socket.socket,
        inode: Inode | None = None,
    ) -> None:
        self.key = key  # the address asked for; equal over reloads while that stays the same
        self.address = address
        self.service = service
        self.sock = sock
        self.inode = inode  # of the Unix socket's file, if we made it

    def __str__(self) -> str:
        """Where it listens for real: port 0 has become a number."""
        if isinstance(self.address, UnixAddress):
            return str(self.address)
        return format_peer(self.sock.getsockname())

    def store_name(self) -> str:
        """What systemd is to call it when it keeps it over a restart; "" for what it cannot.

        A Unix socket's file is removed at a stop, so its socket would be of no use.
        """
        return "" if self.inode else f"{STORE_PREFIX}{zlib.crc32(self.key.encode()):08x}"

    def close(self) -> None:
        """Close this process' copy."""
        self.sock.close()

    def remove(self) -> None:
        """Close it for good: a Unix socket's file goes, unless it is another's by now."""
        if self.inode is not None and isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                if _inode(self.address.path) == self.inode:
                    os.unlink(self.address.path)
            self.inode = None  # the number may be another file's soon
        self.sock.close()


class Inherited:
    """Listening sockets that the process was started with: systemd's, and `fd:N`.

    They stay open for as long as the master lives, used or not: a later reload may name them.
    """

    def __init__(self, sockets: Iterable[InheritedSocket]) -> None:
        self._by_fd: dict[int, socket.socket] = {}
        self._names: dict[int, str] = {}
        for inherited in sockets:
            self._by_fd[inherited.fd] = _adopt(inherited.fd, inherited.name)
            self._names[inherited.fd] = inherited.name

    def find(self, service: Service, address: Address, place: Place) -> socket.socket | None:
        """The socket for `address`: by number, by its own address, by the service's name."""
        if isinstance(address, FdAddress):
            if address.fd not in self._by_fd:
                self._by_fd[address.fd] = _adopt(address.fd, str(address))
            return self._by_fd[address.fd]
        for sock in self._by_fd.values():
            if _is_bound_to(sock, place):
                return sock
        named = [self._by_fd[fd] for fd, name in self._names.items() if name == service.name]
        # Several of one name: only their addresses tell them apart.
        return named[0] if len(named) == 1 and len(service.bind) == 1 else None

    def unused(self, listeners: Iterable[Listener]) -> list[str]:
        """The names of sockets from systemd that no listener uses."""
        used = {listener.sock.fileno() for listener in listeners}
        return [name for fd, name in self._names.items() if fd not in used]

    def give_up(self, name: str) -> None:
        """Close what systemd kept for us under this name."""
        for fd in [fd for fd, known in self._names.items() if known == name]:
            del self._names[fd]
            self._by_fd.pop(fd).close()

    def get(self, fd: int) -> socket.socket | None:
        """The socket with this number, if it is one of ours."""
        return self._by_fd.get(fd)

    def names(self) -> list[tuple[int, str]]:
        """Number and name of each socket from systemd."""
        return list(self._names.items())

    def descriptors(self) -> list[int]:
        """All of them, to be kept when daemonizing."""
        return list(self._by_fd)

    def close_all_but(self, needed: Iterable[socket.socket]) -> None:
        """In a worker: close this process' copies of what its services do not use."""
        for sock in self._by_fd.values():
            if sock not in set(needed):
                sock.close()

    def __contains__(self, sock: socket.socket) -> bool:
        return sock.fileno() in self._by_fd


def open_listeners(
    services: Iterable[Service], held: Mapping[str, Listener], inherited: Inherited
) -> tuple[Listener, ...]:
    """A listener for each address of each service: those in `held`, or new ones.

    Raises BindError for the first address that cannot be had; then nothing is left open that
    was not before.
    """
    opened: list[Listener] = []
    result: list[Listener] = []
    seen: dict[str, int] = {}
    try:
        for service in services:
            for address in service.bind:
                for key, place in _places(address):
                    seen[key] = seen.get(key, 0) + 1
                    if seen[key] > 1:  # port 0 may be asked for several times
                        key = f"{key} #{seen[key]}"
                    if key in held:
                        old = held[key]
                        result.append(Listener(key, address, service, old.sock, old.inode))
                        continue
                    sock = inherited.find(service, address, place)
                    if sock is not None:
                        result.append(Listener(key, address, service, sock))
                        continue
                    opened.append(_open(key, address, place, service))
                    result.append(opened[-1])
    except BaseException:
        for listener in opened:
            listener.remove()
        raise
    return tuple(result)


def tune(listener: Listener) -> None:
    """Apply the service's settings to a socket that is bound already.

    Accepted TCP sockets inherit nodelay and keepalive on Linux, so they cost nothing later.
    """
    sock, service, address = listener.sock, listener.service, listener.address
    if isinstance(address, UnixAddress) and listener.inode:
        if address.mode not in (None, stat.S_IMODE(os.lstat(address.path).st_mode)):
            os.chmod(address.path, address.mode or 0)
        _give_away(address)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, service.nodelay)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, service.keepalive)
    sock.listen(service.backlog)


def without_effect(old: Iterable[Listener], new: Iterable[Listener]) -> list[str]:
    """The changed settings that a socket kept over a reload cannot take on."""
    before = {listener.key: listener.service for listener in old}
    changed = [
        f"services.{listener.service.name}.{setting}"
        for listener in new
        for setting in FIXED
        if listener.key in before
        and getattr(before[listener.key], setting) != getattr(listener.service, setting)
    ]
    return list(dict.fromkeys(changed))


def _places(address: Address) -> list[tuple[str, Place]]:
    """Where `address` is to be bound, each with its key; a name may stand for several places."""
    if isinstance(address, TcpAddress):
        return [(f"{address} {place[1]}", place) for place in _resolve(address)]
    if isinstance(address, UnixAddress):
        path = address.path
        return [(str(address), (socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path))]
    return [(str(address), (socket.AF_UNSPEC, None))]


def _resolve(address: TcpAddress) -> list[Place]:
    """All addresses of a host name. Numbers need no look-up, and so never block."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a label of over 63 letters
        raise BindError(
            f"{address}: cannot resolve {address.host!r}: {error}; use its number"
        ) from None
    return list(dict.fromkeys((int(family), place) for family, _, _, _, place in found))


def _open(key: str, address: Address, place: Place, service: Service) -> Listener:
    """A new socket, bound and listening."""
    family, where = place
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BindError(f"services.{service.name}: cannot bind {address}: {_why(error)}") from error
    inode = None
    try:
        sock.setblocking(False)
        if isinstance(address, UnixAddress):
            if not address.path.startswith("@"):
                inode = _bind_file(sock, address)
            else:
                sock.bind(where)  # type: ignore[arg-type]
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if service.reuseport:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, service.v6only)
            sock.bind(where)  # type: ignore[arg-type]
        listener = Listener(key, address, service, sock, inode)
        tune(listener)
    except OSError as error:
        _undo(sock, address, inode)
        raise BindError(f"services.{service.name}: cannot bind {address}: {_why(error)}") from error
    except BaseException:
        _undo(sock, address, inode)
        raise
    return listener


def _undo(sock: socket.socket, address: Address, inode: Inode | None) -> None:
    """Leave nothing of a listener that did not come about."""
    sock.close()
    if inode is not None and isinstance(address, UnixAddress):
        os.unlink(address.path)


def _why(error: OSError) -> str:
    """The error in words, with the remedy for the usual ones."""
    remedy = {
        errno.EADDRINUSE: "; another program listens there (ss -ltnp shows which), stop it or"
        " choose another address",
        errno.EADDRNOTAVAIL: "; no interface of this machine has that address",
        errno.EACCES: "; ports below 1024 need root or CAP_NET_BIND_SERVICE, a Unix socket needs"
        " a directory that this user may write to",
        errno.ENOENT: "; the directory does not exist, create it",
    }.get(error.errno or 0, "")
    return f"{os.strerror(error.errno) if error.errno else error}{remedy}"


def _bind_file(sock: socket.socket, address: UnixAddress) -> Inode:
    """Bind a Unix socket to its path, with mode and owner right from the first moment.

    Of two starts at one time, one finds the other's socket alive: between looking whether it is
    dead and having replaced it, nobody else of us may do the same.
    """
    with _locked(os.path.dirname(address.path)):
        _remove_stale(address)
        inode = _bind_new_file(sock, address)
        sock.listen(1)  # from here on it is alive; the right backlog is set later
        return inode


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Keep other starts away from what is in `directory`; one that hangs is not waited for."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # bind will say what is wrong
        yield
        return
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(LOCK_PAUSE)
        yield
    finally:
        os.close(fd)


def _bind_new_file(sock: socket.socket, address: UnixAddress) -> Inode:
    if address.mode is None:
        sock.bind(address.path)
        return _inode(address.path)
    # bind(2) makes the file with mode 0777 less the umask, so there is no moment at which it is
    # wider than it shall be, as there would be with a chmod afterwards.
    before = os.umask(0o777 & ~address.mode)
    try:
        sock.bind(address.path)
    finally:
        os.umask(before)
    return _inode(address.path)


def _give_away(address: UnixAddress) -> None:
    """Give the socket's file to the configured owner and group; raises BindError."""
    if address.owner is None and address.group is None:
        return
    try:
        os.chown(address.path, _user_id(address.owner), _group_id(address.group))
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise BindError(
            f"{address}: cannot give it to {address.owner or ''}:{address.group or ''}: {error};"
            " only root may, and the names must exist"
        ) from None


def _remove_stale(address: UnixAddress) -> None:
    """Remove a socket file whose server is dead; refuse to touch anything else."""
    try:
        found = os.lstat(address.path)
    except OSError:
        return  # nothing there; or bind will say what is wrong with the path
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(f"{address}: there is something else than a socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            os.unlink(address.path)
        except OSError:  # EAGAIN: its queue is full, so somebody listens
            pass
    # If it is still there, bind says "address already in use".


def _inode(path: str) -> Inode:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _user_id(name: str | None) -> int:
    if name is None:
        return -1
    return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid


def _group_id(name: str | None) -> int:
    if name is None:
        return -1
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid


def _adopt(fd: int, name: str) -> socket.socket:
    """A socket object for an inherited descriptor, which must be a listening stream socket."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise BindError(
            f"{name}: descriptor {fd} is not an open socket: {error.strerror}; pass one, or write"
            " an address"
        ) from None
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        sock.detach()
        raise BindError(f"{name}: descriptor {fd} is not a listening stream socket")
    os.set_inheritable(fd, False)
    sock.setblocking(False)
    return sock


def _is_bound_to(sock: socket.socket, place: Place) -> bool:
    """Whether an inherited socket listens at a place that is wanted."""
    family, where = place
    name = sock.getsockname()
    if isinstance(name, bytes):  # an abstract Unix address
        name = name.decode(errors="surrogateescape")
    return sock.family == family and name == where
