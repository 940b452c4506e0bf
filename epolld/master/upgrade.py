"""The upgrade in place: the master executes itself anew and keeps its PID, listeners and workers.

    trial run → state into a memfd → execve → the state is read → a reload, as ever

An execve keeps the process, its children and every descriptor that is not close-on-exec, and
drops everything else: so what has to survive is descriptors (listeners, channels, pidfds, the
scoreboard, the pid file's lock) and a description of them. The program that comes to life is
another one, maybe with another Python and another version of this file: it takes what it
understands, and its first act is a reload that replaces all workers. If that fails, the old
workers go on under the new master.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from epolld import config as configs
from epolld import totals
from epolld.channel import Channel
from epolld.clientcounts import ClientCounts
from epolld.config import Loaded, loads
from epolld.errors import ConfigError, EpolldError
from epolld.host.children import Child
from epolld.host.controlsocket import ControlSocket
from epolld.host.generation import Generation
from epolld.host.listeners import Inherited, Listener
from epolld.host.privileges import Identity
from epolld.host.systemd import InheritedSocket
from epolld.master.control import ControlServer, Session
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.scoreboard import Column, Scoreboard, WorkerState

FORMAT_VARIABLE = "EPOLLD_UPGRADE_FORMAT"  # asks a trial run whether it knows our format
VARIABLE = "EPOLLD_UPGRADE"  # the descriptor of the state
FORMAT = 1  # of the state; a program that does not know it cannot take over


class SavedListener(msgspec.Struct, frozen=True):
    """A listening socket: `host.listeners.Listener`."""

    key: str
    service: str
    bind: int  # which of the service's addresses
    fd: int
    inode: tuple[int, int] | None


class SavedWorker(msgspec.Struct, frozen=True):
    """A worker process: `pool.WorkerHandle`."""

    slot: int
    row: int
    pid: int
    pidfd: int
    channel: int  # descriptor
    generation: int
    state: str
    age: float  # seconds
    told_to_leave: bool = False
    dismissed: bool = False


class SavedClient(msgspec.Struct, frozen=True):
    """Who waits at the control socket to hear how the upgrade went."""

    fd: int
    request_id: str | int | None


class SavedControl(msgspec.Struct, frozen=True):
    """The control socket: `host.controlsocket.ControlSocket`."""

    fd: int
    path: str
    inode: tuple[int, int]
    clients: list[SavedClient]


class SavedMaster(msgspec.Struct, frozen=True):
    """All that the next program is to know."""

    format: int
    pid: int
    version: str  # of the program that wrote this
    configs: dict[str, str]  # YAML in force, by generation
    generation: int  # the one in force
    last_number: int
    extra_workers: int
    suspended: bool
    listeners: list[SavedListener]  # of the generation in force
    inherited: list[tuple[int, str]]
    workers: list[SavedWorker]
    scoreboard: int  # descriptor
    scoreboard_layout: list[int]
    pidfile: str
    pidfile_fd: int
    directory: str  # where the program was started, for relative paths on its command line
    clients: int = -1  # descriptor of the table of clients, if there is one
    clients_layout: list[int] = []
    totals: dict[str, dict[str, dict[str, int]]] = {}  # for a scoreboard of another layout
    said: dict[str, int] = {}
    signals: list[int] = []  # that have come and were not obeyed yet
    control: SavedControl | None = None


def command_line() -> list[str]:
    """What runs the program anew, as it was started.

    By its first word Python finds its virtual environment, so that must be a path.
    """
    return [sys.executable, *sys.orig_argv[1:]]


class Origin(NamedTuple):
    """Where this process comes from, and so how to start it again."""

    config: str  # path
    directory: str  # the current folder at the start
    environ: Mapping[str, str]  # systemd's variables, which the process has forgotten
    saved: SavedMaster | None  # by the program before, if this is an upgrade

    def program(self) -> str:
        """The command, for the log."""
        return " ".join(command_line())


def save_listener(listener: Listener) -> SavedListener:
    """What is to be known of a listener."""
    place = listener.service.bind.index(listener.address)
    return SavedListener(
        listener.key, listener.service.name, place, listener.sock.fileno(), listener.inode
    )


def save_control(server: ControlServer, clients: Iterable[Session]) -> SavedControl | None:
    """What is to be known of the control socket; None without one."""
    place = server.place()
    if place is None:
        return None
    waiting = [SavedClient(each.fileno(), each.request_id) for each in clients]
    return SavedControl(place.sock.fileno(), place.path, place.inode, waiting)


def restore_control(state: SavedMaster) -> ControlSocket | None:
    """The control socket, open as ever; None if the program before had none."""
    saved = state.control
    if saved is None:
        return None
    for fd in _control_descriptors(saved):
        os.set_inheritable(fd, False)
    sock = socket.socket(fileno=saved.fd)
    sock.setblocking(False)
    return ControlSocket(sock, saved.path, saved.inode)


def save_workers(pool: Pool, now: float) -> list[SavedWorker]:
    """What is to be known of all workers."""
    return [
        SavedWorker(
            worker.slot,
            worker.row,
            worker.pid,
            worker.child.pidfd,
            worker.channel.fileno(),
            worker.generation.number,
            worker.state.value,
            now - worker.born,
            worker.told_to_leave,
            worker.dismissed,
        )
        for worker in pool
        if worker.channel.fileno() >= 0
    ]


def save_configs(pool: Pool, in_force: Generation) -> dict[str, str]:
    """The configurations of all generations that have workers, and of the one in force."""
    generations = [in_force, *(worker.generation for worker in pool)]
    return {str(each.number): configs.render(each.config) for each in generations}


def restore_config(state: SavedMaster, number: int | None = None) -> Loaded:
    """The configuration of a generation (None: the one in force).

    Raises ConfigError if this program does not understand it.
    """
    number = state.generation if number is None else number
    return loads(state.configs[str(number)], f"generation {number}, before the upgrade")


def restore_generation(
    state: SavedMaster,
    loaded: Loaded,
    inherited: Inherited,
    identity: Identity | None,
    tls: dict[str, Any],
) -> Generation:
    """The generation in force, its listeners open as ever."""
    services = {service.name: service for service in configs.listening(loaded.config)}
    listeners = []
    for saved in state.listeners:
        service = services.get(saved.service)
        if service is None or saved.bind >= len(service.bind):
            os.close(saved.fd)  # not in the configuration that we had to take instead
            continue
        sock = inherited.get(saved.fd)
        if sock is None:
            os.set_inheritable(saved.fd, False)
            sock = socket.socket(fileno=saved.fd)
            sock.setblocking(False)
        listeners.append(Listener(saved.key, service.bind[saved.bind], service, sock, saved.inode))
    return Generation(state.generation, loaded, tuple(listeners), identity, tls)


def restore_workers(state: SavedMaster, pool: Pool, in_force: Generation, now: float) -> None:
    """Follow the workers of the program before."""
    os.set_inheritable(state.scoreboard, False)
    if state.scoreboard_layout == pool.scoreboard.layout():
        pool.scoreboard.close_descriptor()
        pool.scoreboard = Scoreboard(fd=state.scoreboard)
        rows = {saved.pid: saved.row for saved in state.workers}
    else:  # another program's table: they go on writing to it, and we do not look
        os.close(state.scoreboard)
        totals.restore(pool.scoreboard, state.totals)
        totals.restore_master(pool.scoreboard, state.said)
        rows = {saved.pid: _take_row(pool.scoreboard, saved) for saved in state.workers}
    _restore_clients(state, pool)
    generations = {in_force.number: in_force}
    for saved in state.workers:
        if saved.generation not in generations:
            try:
                loaded = restore_config(state, saved.generation)
            except ConfigError:
                loaded = in_force.loaded  # it is leaving anyway
            generations[saved.generation] = Generation(
                saved.generation, loaded, (), in_force.identity
            )
        for fd in (saved.pidfd, saved.channel):
            os.set_inheritable(fd, False)
        worker = revive(saved, rows[saved.pid], generations[saved.generation], now)
        pool.adopt(worker, State(saved.state))


def revive(saved: SavedWorker, row: int, generation: Generation, now: float) -> WorkerHandle:
    """The handle of a worker that the program before had."""
    child = Child(saved.pid, saved.pidfd, Channel.adopt(saved.channel))
    worker = WorkerHandle(saved.slot, row, child, generation, now)
    worker.born = now - saved.age
    worker.ready_at = None if saved.state == State.STARTING.value else worker.born
    worker.told_to_leave = saved.told_to_leave
    worker.dismissed = saved.dismissed
    return worker


def _restore_clients(state: SavedMaster, pool: Pool) -> None:
    """Go on with the table of clients; with another program's, the counts begin anew."""
    if state.clients < 0:
        return
    if state.scoreboard_layout != pool.scoreboard.layout():
        os.close(state.clients)  # the rows are others now
        return
    os.set_inheritable(state.clients, False)
    table = ClientCounts(pool.scoreboard.rows, state.clients)
    if table.layout() == state.clients_layout:
        pool.clients = table
    else:
        table.close()


def _take_row(board: Scoreboard, saved: SavedWorker) -> int:
    """A row for a worker that does not write to it; that it serves is all that can be said."""
    row = board.take_row(saved.pid, saved.slot, saved.generation)
    if saved.state == State.READY.value:
        board.column(Column.STATE)[row] = WorkerState.SERVING
    return row


def save(state: SavedMaster) -> int:
    """Write the state into a memfd that survives the execve; returns its descriptor."""
    fd = os.memfd_create("epolld-upgrade", 0)
    data = memoryview(msgspec.json.encode(state))
    while data:
        data = data[os.write(fd, data) :]
    return fd


def restore(environ: Mapping[str, str]) -> SavedMaster | None:
    """The state that the program before left for us; None at an ordinary start.

    Raises EpolldError if there is one that we do not understand.
    """
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        with open(int(text), "rb") as file:
            file.seek(0)
            state = msgspec.json.decode(file.read(), type=SavedMaster)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise EpolldError(f"upgrade: cannot read the state ({VARIABLE}={text}): {error}") from None
    if state.format != FORMAT:
        raise EpolldError(f"upgrade: state of format {state.format}, expected {FORMAT}")
    return state if state.pid == os.getpid() else None  # else the variable is not meant for us


def descriptors(state: SavedMaster) -> list[int]:
    """All that must survive the execve, besides the state itself."""
    return [
        *{listener.fd for listener in state.listeners},
        *(fd for fd, _ in state.inherited),
        *(worker.pidfd for worker in state.workers),
        *(worker.channel for worker in state.workers),
        state.scoreboard,
        *([state.clients] if state.clients >= 0 else []),
        state.pidfile_fd,
        *([] if state.control is None else _control_descriptors(state.control)),
    ]


def _control_descriptors(control: SavedControl) -> list[int]:
    return [control.fd, *(client.fd for client in control.clients)]


def inherited_sockets(state: SavedMaster) -> list[InheritedSocket]:
    """What systemd passed to the first program."""
    return [InheritedSocket(fd, name) for fd, name in state.inherited]


@contextlib.contextmanager
def inheritable(fds: list[int]) -> Iterator[None]:
    """Descriptors survive an execve meanwhile; if that fails, they are as before."""
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        yield
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)


def execute(state: SavedMaster, environ: Mapping[str, str]) -> None:
    """Become the new program; returns only by raising OSError, with everything as before.

    To be called with all signals blocked, which they stay over the execve: handlers do not survive
    it, and a signal that came before the new program has its own would kill the daemon.
    """
    fd = save(state)
    here = os.getcwd()
    try:
        os.chdir(state.directory)
        with inheritable(descriptors(state)):
            os.execve(sys.executable, command_line(), {**environ, VARIABLE: str(fd)})
    finally:
        os.chdir(here)
        os.close(fd)
