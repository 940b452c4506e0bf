"""A protocol driven in memory: bytes go in, what it writes is looked at, a clock is turned.

    peer = connect(Upper)
    assert peer.ask(b"hello") == b"HELLO"
    peer.half_close()
    assert peer.ended == "EOF"

No socket is opened and nothing waits, but the loop, the service and the transport are the ones
that serve in a worker: the same code, over wires.py in place of the kernel's sockets. So is what
it does to a protocol: pieces, half-close, backpressure, time-outs, hand-over, the fence.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, TypeVar

from epolld.net import descriptor, service, transport
from epolld.net.application import WorkerContext
from epolld.net.farewell import Farewell
from epolld.net.frozen import Batch, decode_batch, encode
from epolld.net.loop import EventLoop
from epolld.testing import wires

Cls = TypeVar("Cls", bound=type)

MAX_TURNS = 10_000  # of the loop, for one thing that the peer does; more is an endless loop
PEER = ("192.0.2.1", 50000)  # TEST-NET-1, RFC 5737
HERE = ("192.0.2.2", 1688)


# What takes the place of the modules and functions through which a transport speaks to the kernel.
_CALLS = {
    "os_read": wires.read,
    "os_write": wires.write,
    "os": wires.os_over_wires,
    "linger": wires.linger,
    "descriptor": SimpleNamespace(
        **{
            **vars(descriptor),
            "shutdown": wires.shutdown,
            "pending_error": wires.pending_error,
            "local_address": wires.local_address,
            "peer_credentials": lambda _fd: None,
        }
    ),
}
_settle_all = transport.settle_all
_CALLS["settle_all"] = FunctionType(_settle_all.__code__, {**_settle_all.__globals__, **_CALLS})
_CALLS["fastest_settle_all"] = _CALLS["settle_all"]  # there is none in C


def _over_wires(cls: Cls) -> Cls:
    """Class decorator: the methods that speak to the kernel speak to wires, the code unchanged."""
    for base in reversed(cls.__mro__):
        for name, method in vars(base).items():
            if isinstance(method, FunctionType) and _names_in(method.__code__) & _CALLS.keys():
                moved = FunctionType(
                    method.__code__,
                    {**method.__globals__, **_CALLS},
                    name,
                    method.__defaults__,
                    method.__closure__,
                )
                moved.__kwdefaults__ = method.__kwdefaults__
                setattr(cls, name, moved)
    return cls


def _names_in(code: CodeType) -> set[str]:
    """All names that a function uses, and the functions in it."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


@_over_wires
class WireTransport(transport.Transport):
    """A transport over a wire."""

    __slots__ = ()


class MemoryTransport(WireTransport):
    """What its protocol lets through is kept by the service, too."""

    __slots__ = ()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As a transport's, but there is no socket."""
        return default if name == "socket" else super().get_extra_info(name, default)

    def _fault(self, callback: str, exc: BaseException) -> None:
        assert isinstance(self._service, MemoryService)
        self._service.faults.append(exc)
        super()._fault(callback, exc)


@_over_wires
class WireService(service.Service):
    """A service whose connections are wires."""


class MemoryService(WireService):
    """What protocols let through is kept."""

    transport_type = MemoryTransport

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.faults: list[BaseException] = []  # what callbacks let through


class MemoryLoop(EventLoop):
    """An event loop over wires, whose time is the clock's."""

    __slots__ = ()

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._epoll.close()
        self._epoll = wires.Readiness()  # type: ignore[assignment]

    def settle(self) -> None:
        """Turn until all is done that can be done at this time."""
        for _ in range(MAX_TURNS):
            self.call_soon(self.stop)
            self.run()
            due = self._timers.next_deadline()
            if not self._deferred and not self._epoll.poll() and (due is None or due > self.now):
                return
        raise AssertionError(f"no rest after {MAX_TURNS} turns: it does something again and again")

    def next_deadline(self) -> float | None:
        """When the next timer is due."""
        return self._timers.next_deadline()


class Peer:
    """The other end of a connection, and the hand on the clock; made by `connect`.

    `protocol`, `transport` and `application` are the server's; after `move`, the new worker's.
    `errors` are the exceptions that callbacks let through. They end the connection, as in the
    daemon, and the first is raised again by the method during which it happened, unless `fenced`.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        *,
        service: str = "test",
        peername: Any = PEER,
        sockname: Any = HERE,
        idle_timeout: float = 0,
        window: int | None = None,
        application: Callable[[], Any] | None = None,
        fenced: bool = False,
    ) -> None:
        self._make_application = application
        self._generation = 0  # of the worker
        self._time = 1000.0  # any; a protocol should not rely on a beginning
        self._name = service
        self._idle_timeout = idle_timeout
        self._fenced = fenced
        self._raised = 0  # of `errors`
        self.errors: list[BaseException] = []
        self.protocol: Any = None
        self.transport: Any = None
        self.application: Any = None
        self._wire = wires.Wire(sockname)
        self._wire.window = window
        self._begin(factory)
        self._serve(lambda fd: self._service.open(fd, peername))

    def _begin(self, factory: Callable[[], Any]) -> None:
        """A worker, with its loop and its service."""

        def make() -> Any:
            try:
                self.protocol = factory()
            except BaseException as exc:
                self._service.faults.append(exc)
                raise
            return self.protocol

        self._factory = factory
        self._loop = MemoryLoop(lambda: self._time)
        self._service = MemoryService(self._loop, self._name, make, self._idle_timeout)
        self._generation += 1
        if self._make_application is not None:
            self.application = self._make_application()
            context = WorkerContext(self._loop, slot=0, generation=self._generation)
            _call(self.application, "start", context)
        self._service.common = {"worker": 0, "application": self.application}

    def _serve(self, begin: Callable[[int], object]) -> None:
        """Give our end of the wire to the service."""
        begin(self._wire.number())
        # One that ended at once is in no table any more, but its protocol may know it.
        found = [*self._service.transports, getattr(self.protocol, "transport", None)]
        self.transport = found[0]
        self._settle()

    def _settle(self) -> None:
        """Let the server do what it has to do, and tell what went wrong."""
        self._loop.settle()
        self.errors += self._service.faults
        self._service.faults.clear()
        if not self._fenced and len(self.errors) > self._raised:
            self._raised = len(self.errors)
            raise self.errors[-1]

    # -- sending and receiving -------------------------------------------------------------------

    def send(self, *pieces: bytes) -> None:
        """Send bytes; each piece is received for itself, if it has no more than 64 KiB."""
        for piece in pieces:
            assert not self._wire.fin_received, "the peer has ended its direction"
            self._wire.inbound += piece
            self._settle()

    def take(self, size: int | None = None) -> bytes:
        """What the server has sent and was not taken yet; at most `size` bytes of it."""
        taken = bytes(self._wire.outbound[:size])
        del self._wire.outbound[: len(taken)]
        self._settle()
        return taken

    def ask(self, *pieces: bytes) -> bytes:
        """Send, and take the answer."""
        self.send(*pieces)
        return self.take()

    def pause(self, room: int = 0) -> None:
        """Take no more: the server can send `room` bytes yet, then its write buffer fills.

        What `take` takes makes room, as far as it was sent after this.
        """
        self._wire.window = len(self._wire.outbound) + room

    def resume(self) -> None:
        """Take everything again."""
        self._wire.window = None
        self._settle()

    # -- ends --------------------------------------------------------------------------------------

    def half_close(self) -> None:
        """Send no more, and go on taking."""
        self._wire.fin_received = True
        self._settle()

    def close(self) -> None:
        """Hang up; with an RST if we have paused and something was not taken."""
        self._wire.peer_close()
        self._settle()

    def reset(self) -> None:
        """Break the connection off with an RST."""
        self._wire.gone = True
        self._wire.peer_reset()
        self._settle()

    @property
    def ended(self) -> str:
        """How the server has ended its direction: "" (not yet), "EOF" or "RESET"."""
        if self._wire.reset_sent:
            return "RESET"
        return "EOF" if self._wire.fin_sent else ""

    @property
    def cause(self) -> str:
        """The word by which the end of the connection is counted; "" while it lives."""
        return next(iter(self._service.closed), "")

    # -- time, and the worker's life ---------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass; every timer is called at its time."""
        end = self._time + seconds
        while (due := self._loop.next_deadline()) is not None and due <= end:
            self._time = max(due, self._time)
            self._settle()
        self._time = end
        self._settle()

    def move(self, factory: Callable[[], Any] | None = None) -> bool:
        """Hand the connection over to another worker, as a reload does; False: "not now".

        `factory` makes the protocol there, for new code or other options. The old object is told
        nothing, and `protocol` is the new one from here on.
        """
        frozen = self.transport.freeze()
        if frozen is None:
            self._settle()
            return False
        (arrived,) = decode_batch(encode(Batch(1, [frozen]))).connections
        old, transport, application = self._loop, self.transport, self.application
        self._begin(factory or self._factory)
        self._serve(lambda fd: self._service.adopt(fd, arrived))
        transport.release()
        old.settle()
        _call(application, "stop")
        return True

    def drain(self) -> None:
        """Say goodbye as a worker does that has to leave with a connection that cannot move."""
        Farewell(self._loop, 0).add(self.transport)
        self._settle()


def _call(application: Any, hook: str, *arguments: object) -> None:
    """Call a hook of an application, which may lack it. Raises TypeError if it is a coroutine."""
    found = getattr(application, hook, lambda *_: None)(*arguments)
    if hasattr(found, "__await__"):
        raise TypeError(f"{hook} is a coroutine, which needs a real worker: use epolld_daemon")


def connect(
    protocol: Callable[[], Any],
    *,
    service: str = "test",
    peername: Any = PEER,
    sockname: Any = HERE,
    idle_timeout: float = 0,
    window: int | None = None,
    application: Callable[[], Any] | None = None,
    fenced: bool = False,
) -> Peer:
    """Connect to a protocol; returns the peer's end.

    `protocol` is its class, or a function that makes one: `lambda: Quota(limit=3)`. The names are
    what `get_extra_info` tells, `idle_timeout` (seconds) is the service's setting, and `window` is
    how many bytes the server can send that were not taken (None: any number). `application` makes
    the worker's application, whose `start` is called before, as its `stop` is after a `move`; they
    must not be coroutines. `fenced`: keep what callbacks raise in `errors`, raise nothing.
    """
    return Peer(
        protocol,
        service=service,
        peername=peername,
        sockname=sockname,
        idle_timeout=idle_timeout,
        window=window,
        application=application,
        fenced=fenced,
    )
