"""The control socket's clients: bytes in, bytes out, and every bound that keeps the master safe.

A client may be slow, greedy, silent or hostile; the master serves it in its own loop, never waits
for it, and holds no more of it than the constants below say. Refuses to know what is asked: a line
goes to the `handle` function, which answers through the `Session`.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from epolld import log as logs
from epolld.host import controlsocket
from epolld.host.controlsocket import ControlSocket, Peer
from epolld.net.loop import EventLoop
from epolld.net.timers import Timer

log = logging.getLogger("epolld.control")

MAX_LINE = 65536  # bytes of a request; more is refused and the client closed
MAX_CLIENTS = 64  # at a time; then who has been silent for longest makes room
READ_SIZE = 16384  # bytes taken from a client in one turn
ENOUGH = 262144  # bytes that wait for a client; above it, long answers wait for room
ACCEPTS = 16  # clients taken in one turn

PATIENCE = 30.0  # seconds for a whole request, and for the client to take any of what waits for it
NO_DESCRIPTORS = 1.0  # seconds of pause when the process has none left

encode = msgspec.json.Encoder().encode


class Session:
    """One client. It asks, and hears the whole answer before its next request is looked at."""

    def __init__(self, server: ControlServer, sock: socket.socket, peer: Peer | None) -> None:
        self.peer = peer
        self.on_room: Callable[[], object] | None = None  # some of what waited has been taken
        self.on_gone: Callable[[], object] | None = None  # the client has gone amid an answer
        self.request_id: Any = None
        self.asking = False  # its request is being answered
        self._server = server
        self._loop = server.loop
        self._sock = sock
        self._in = bytearray()
        self._out: deque[memoryview] = deque()
        self._waiting = 0  # bytes in _out
        self._ended = False  # it sends no more
        self._closing = False  # once everything is sent
        self._registered = False  # in the loop
        self._events = 0
        self._timer: Timer | None = None

    # -- what answers ------------------------------------------------------------------------------

    def more(self, result: Any) -> None:
        """A part of the answer; further ones follow."""
        self._say({"ok": True, "more": True, "result": result})

    def more_raw(self, result: bytes) -> None:
        """The same, in JSON already."""
        if b"\n" in result:
            raise ValueError("a line break within JSON")
        head = encode(self._head({"ok": True, "more": True}))
        self._send(b'%b,"result":%b}\n' % (head[:-1], result))

    def answer(self, result: Any) -> None:
        """The answer, or its last part."""
        self._say({"ok": True, "result": result})
        self._next()

    def fail(self, error: str, message: str, **facts: Any) -> None:
        """The command was not done: a word for programs, a sentence for people."""
        self._say({"ok": False, "error": error, "message": message, **facts})
        self._next()

    def has_room(self) -> bool:
        """Whether a long answer may go on."""
        return self._waiting < ENOUGH

    def is_gone(self) -> bool:
        """Whether the client is closed."""
        return self._sock.fileno() < 0

    # -- what the server calls ---------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._sock.fileno()

    def start(self) -> None:
        """Listen to it."""
        self._watch()
        self._await(PATIENCE)

    def resume(self, request_id: Any) -> None:
        """Go on after an upgrade: its request is still to be answered."""
        self.asking = True
        self.request_id = request_id
        self._watch()

    def refuse(self, error: str, message: str) -> None:
        """Say so, and close."""
        self._say({"ok": False, "error": error, "message": message})
        self._finish()

    def close(self) -> None:
        """Close it, whatever it was at."""
        if self.is_gone():
            return
        self._forget_timer()
        self._loop.unregister(self._sock.fileno())
        self._sock.close()
        self._out.clear()
        self._server.forget(self)
        gone, self.on_gone, self.on_room = self.on_gone, None, None
        if gone is not None and self.asking:
            gone()

    def close_in_child(self) -> None:
        """In a worker: the client is not ours."""
        self._sock.close()

    def on_ready(self, events: int) -> None:
        """Read a request, or send more of an answer."""
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLHUP | select.EPOLLERR) and (self.asking or self._out):
            self.close()  # nobody will read it
        elif events & ~select.EPOLLOUT and not self.is_gone() and not self.asking:
            self._receive()

    # -- inside ------------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._closing:
            return
        if data:
            self._in += data
        else:
            self._ended = True
        self._take_line()

    def _take_line(self) -> None:
        """Hand on the next request, if it is there as a whole."""
        if self.asking or self._closing or self.is_gone():
            return
        end = self._in.find(b"\n")
        if end < 0 and self._ended and self._in.strip():
            end = len(self._in)  # the last line may lack its end
        if end > MAX_LINE or (end < 0 and len(self._in) > MAX_LINE):
            self.refuse("too_long", f"a request has at most {MAX_LINE} bytes")
        elif end >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            if line.strip():
                self._ask(line)
            else:
                self._loop.call_soon(self._take_line)
        elif self._ended:
            self._finish()
        else:
            self._watch()

    def _ask(self, line: bytes) -> None:
        self.asking = True
        self.request_id = None
        self._server.note_request(self)
        self._forget_timer()
        self._watch()
        try:
            self._server.handle(self, line)
        except Exception as error:
            log.exception("internal error; please report it")
            if self.asking:
                self.fail("internal", f"{type(error).__name__}: {error}")

    def _next(self) -> None:
        """The answer is complete: look for another request, in a later turn."""
        self.asking = False
        self.on_room = self.on_gone = None
        if not self.is_gone():
            self._await(PATIENCE)
            self._watch()
            self._loop.call_soon(self._take_line)

    def _finish(self) -> None:
        """Close once everything is sent."""
        self._closing = True
        if self._out:
            self._watch()
            self._await(PATIENCE)
        else:
            self.close()

    def _say(self, answer: dict[str, Any]) -> None:
        self._send(encode(self._head(answer)) + b"\n")

    def _head(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer if self.request_id is None else {"id": self.request_id, **answer}

    def _send(self, data: bytes) -> None:
        if self.is_gone():
            return
        self._out.append(memoryview(data))
        self._waiting += len(data)
        if len(self._out) == 1:
            self._flush()

    def _flush(self) -> None:
        """Send what the client takes now."""
        taken = 0
        try:
            while self._out:
                sent = self._sock.send(self._out[0])
                taken += sent
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                else:
                    self._out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._waiting -= taken
        if self._out:
            if taken or self._timer is None:
                self._await(PATIENCE)
        elif self._closing:
            self.close()
            return
        elif self.asking:
            self._forget_timer()
        self._watch()
        if taken and self.on_room is not None and self.has_room():
            self._loop.call_soon(self._tell_room)

    def _tell_room(self) -> None:
        if self.on_room is not None and not self.is_gone():
            self.on_room()

    def _watch(self) -> None:
        """Have epoll report what is wanted now; that the client is gone it reports always."""
        if self.is_gone():
            return
        wanted = select.EPOLLOUT if self._out else 0
        if not self.asking and not self._closing and not self._ended:
            wanted |= select.EPOLLIN
        fd = self._sock.fileno()
        if not self._registered:
            self._registered = True
            self._loop.add(fd, wanted, self)
        elif wanted != self._events:
            self._loop.modify(fd, wanted)
        self._events = wanted

    def _await(self, seconds: float) -> None:
        """Close it if nothing happens for so long."""
        self._forget_timer()
        self._timer = self._loop.call_later(seconds, self.close)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ControlServer:
    """Accepts clients, and knows them all."""

    def __init__(self, loop: EventLoop, handle: Callable[[Session, bytes], object]) -> None:
        self.loop = loop
        self.handle = handle
        self._place: ControlSocket | None = None
        self._owner = os.geteuid()
        self._group: int | None = None
        self._sessions: dict[Session, None] = {}  # in the order of their last request
        self._repeats = logs.Repeats(10.0)

    def open(self, place: ControlSocket, group: int | None) -> None:
        """Serve a listening socket."""
        self._place = place
        self._group = group
        self.loop.register(place.sock.fileno(), select.EPOLLIN, self._accept)

    def place(self) -> ControlSocket | None:
        """The listening socket, for who is to go on with it."""
        return self._place

    def waiting(self) -> list[Session]:
        """Those whose request is being answered."""
        return [session for session in self._sessions if session.asking]

    def adopt(self, fd: int, request_id: Any) -> Session:
        """Go on with a client of the program before us, whose request is still to be answered."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        session = Session(self, sock, None)
        self._sessions[session] = None
        session.resume(request_id)
        return session

    def forget(self, session: Session) -> None:
        """It is closed."""
        self._sessions.pop(session, None)

    def note_request(self, session: Session) -> None:
        """It is the last of whom it would be to make room."""
        if self._sessions.pop(session, session) is None:
            self._sessions[session] = None

    def close(self) -> None:
        """Close all, and remove the file."""
        for session in list(self._sessions):
            session.close()
        if self._place is not None:
            self.loop.unregister(self._place.sock.fileno())
            self._place.remove()
            self._place = None

    def close_in_child(self) -> None:
        """In a worker: it commands nobody."""
        if self._place is not None:
            self._place.sock.close()
        for session in self._sessions:
            session.close_in_child()

    def _accept(self, _events: int) -> None:
        assert self._place is not None
        for _ in range(ACCEPTS):
            try:
                sock, _ = self._place.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error)
                return
            sock.setblocking(False)
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        """Find out who it is, and whether there is room."""
        try:
            peer = controlsocket.peer_of(sock)
        except OSError:
            sock.close()
            return
        session = Session(self, sock, peer)
        if not controlsocket.may_command(peer, self._owner, self._group):
            self._warn("refused", "refused %s: may not command this daemon", peer)
            session.refuse("denied", "only root, the daemon's user and master.control_group may")
            session.close()  # what the kernel did not take is not waited for
            return
        if len(self._sessions) >= MAX_CLIENTS and not self._make_room():
            self._warn("full", "refused %s: all %d clients wait for answers", peer, MAX_CLIENTS)
            session.refuse("busy", f"all {MAX_CLIENTS} clients wait for answers; try again")
            session.close()
            return
        self._sessions[session] = None
        session.start()

    def _make_room(self) -> bool:
        """Close who has been silent for longest; False if all wait for an answer."""
        for session in self._sessions:
            if not session.asking:
                session.close()
                return True
        return False

    def _pause(self, error: OSError) -> None:
        """No descriptor is left: waiting clients would wake the loop again and again."""
        assert self._place is not None
        fd = self._place.sock.fileno()
        self._warn("accept", "cannot accept: %s", error.strerror)
        self.loop.unregister(fd)

        def again() -> None:
            if self._place is not None:
                self.loop.register(fd, select.EPOLLIN, self._accept)

        self.loop.call_later(NO_DESCRIPTORS, again)

    def _warn(self, kind: str, message: str, *values: object) -> None:
        """Log what somebody else may cause again and again."""
        say, _ = self._repeats.allow(kind, self.loop.now)
        if say:
            log.warning(message, *values)
