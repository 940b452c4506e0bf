"""What master and worker say to each other, and the socket that they say it over.

One socketpair a worker, SOCK_SEQPACKET: messages keep their boundaries and their order, and end
of file on it is the death notice of the other side. Messages are small JSON objects; a message
may carry descriptors. Part of the contract between master and workers (the other part is
scoreboard.py); it imports neither. Sending never blocks: a worker that does not read is stuck,
and what to do about that is the watchdog's business.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket

import msgspec

MAX_MESSAGE = 65536  # bytes
MAX_TEXT = 10000  # characters of a reason, each up to 6 bytes in JSON: it fits a message
MAX_DESCRIPTORS = 253  # the kernel's SCM_MAX_FD
# From master to worker, when that does not answer: write your stacks into the log. None of the
# signals with a name, which somebody may send to all processes at once.
DUMP = signal.SIGRTMIN
CONTROL_SIZE = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the class name travels as the JSON object's `type`."""


class Ready(Message, frozen=True, tag=True):
    """Worker to master: booted, able to serve; waits for `Serve`."""


class Failed(Message, frozen=True, tag=True):
    """Worker to master: cannot boot; the process exits after it."""

    reason: str
    exit_code: int


class Serve(Message, frozen=True, tag=True):
    """Master to worker: accept connections from now on."""


class Drain(Message, frozen=True, tag=True):
    """Master to worker: accept no more, give your connections away, leave when none is left.

    With it come the ends of socketpairs to the workers that take connections. Sent again when
    there are other heirs; the patience then stays as it was.
    """

    patience: float  # seconds; then what is left is closed
    spread: float  # seconds over which goodbyes are spread
    movable: list[str]  # services whose connections may move
    heirs: list[int]  # rows in the scoreboard, in the order of the descriptors


class Share(Message, frozen=True, tag=True):
    """Master to worker: give `count` connections to the workers whose descriptors come along."""

    count: int
    heirs: list[int]


class Adopt(Message, frozen=True, tag=True):
    """Master to worker: take the connections that come over the descriptor with this message."""


class Stop(Message, frozen=True, tag=True):
    """Master to worker: close everything and leave now."""


class ReopenLog(Message, frozen=True, tag=True):
    """Master to worker: log to the descriptor that comes with this message.

    `path` names the access log that it is for; "" is the daemon's own log.
    """

    path: str = ""


class SetLogLevel(Message, frozen=True, tag=True):
    """Master to worker: log from this level on."""

    level: str


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which connections; what is left out does not matter."""

    ids: list[int] = []
    service: str = ""
    peers: list[str] = []  # addresses or networks
    idle: float = 0.0  # seconds, at least


class WalkConnections(Message, frozen=True, tag=True):
    """Master to worker: describe your connections, in parts; `Walked` is a part.

    With `kill`, end them at once, too. A walk is named by its `number`.
    """

    number: int
    selection: Selection
    kill: bool = False


class WalkOn(Message, frozen=True, tag=True):
    """Master to worker: the next part; so nobody holds more than one of them."""

    number: int


class WalkNoMore(Message, frozen=True, tag=True):
    """Master to worker: nobody wants to know any more."""

    number: int


class Walked(Message, frozen=True, tag=True):
    """Worker to master: a part of a walk, and whether it was the last one."""

    number: int
    count: int
    connections: msgspec.Raw  # a list of `count` objects, which the master only hands on
    last: bool


class DumpStacks(Message, frozen=True, tag=True):
    """Master to worker: say where all your threads are."""

    number: int


class Stacks(Message, frozen=True, tag=True):
    """Worker to master: that."""

    number: int
    text: str


AnyAnswer = Walked | Stacks
AnyMessage = (
    Ready
    | Failed
    | Serve
    | Drain
    | Share
    | Adopt
    | Stop
    | ReopenLog
    | SetLogLevel
    | WalkConnections
    | WalkOn
    | WalkNoMore
    | DumpStacks
    | AnyAnswer
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyMessage).decode


def fit_text(text: str) -> str:
    """A reason as it can travel: not too long, and whatever bytes a file name in it has."""
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def received_descriptors(control: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    """The descriptors in what recvmsg gave as control data; they belong to the caller."""
    descriptors = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            # The kernel may have cut it short in the midst of one.
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return tuple(descriptors)


class ChannelClosed(Exception):
    """The other side has closed its end; as a rule because it is dead."""


class Channel:
    """One end of the conversation; non-blocking."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """A new conversation: the master's end and the worker's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def adopt(cls, fd: int) -> Channel:
        """An end that has survived an execve."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The descriptor, to be watched for EPOLLIN; -1 once closed."""
        return self._sock.fileno()

    def send(self, message: AnyMessage, descriptors: tuple[int, ...] = ()) -> bool:
        """Say something; False if the other side is dead or does not read."""
        try:
            if descriptors:
                socket.send_fds(self._sock, [_encode(message)], list(descriptors))
            else:
                self._sock.send(_encode(message))
        except OSError:
            return False
        return True

    def receive(self) -> tuple[AnyMessage, tuple[int, ...]] | None:
        """The next message and the descriptors that came with it; None if there is none now.

        The descriptors belong to the caller. Raises ChannelClosed at end of file, ValueError
        for what is no message.
        """
        try:
            # Not socket.recv_fds: it does not hand flags on, and CLOEXEC is one.
            data, control, flags, _ = self._sock.recvmsg(
                MAX_MESSAGE, CONTROL_SIZE, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionError:
            raise ChannelClosed from None
        if not data:
            raise ChannelClosed
        descriptors = received_descriptors(control)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ValueError("message truncated")
            return _decode(data), descriptors
        except (ValueError, msgspec.MsgspecError) as exc:
            for fd in descriptors:
                with contextlib.suppress(OSError):
                    os.close(fd)
            raise ValueError(f"not a message: {exc}") from exc

    def close(self) -> None:
        """Close this end: the other side reads end of file."""
        self._sock.close()
