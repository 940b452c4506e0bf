"""Two workers in one process, between which connections move: loops, services, donors, receivers.

Their loops are turned in turn, so a test decides who does what when. Knows no processes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from wiring import DEADLINE, receive, turn, unix_pair

from epolld.net import handoff
from epolld.net.frozen import Receipt, decode_batch, encode
from epolld.net.handoff import Donor, Receiver
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.net.transport import Transport


class Lines(Protocol):
    """Answers each line with its number and its text; a piece of a line waits for the rest."""

    def __init__(self) -> None:
        self.part = b""
        self.count = 0

    def data_received(self, data: bytes) -> None:
        *lines, self.part = (self.part + data).split(b"\n")
        for line in lines:
            self.count += 1
            self.transport.write(b"%d:%s\n" % (self.count, line))

    def freeze(self) -> bytes | None:
        return b"%d %s" % (self.count, self.part)

    def thaw(self, state: bytes) -> None:
        count, _, self.part = state.partition(b" ")
        self.count = int(count)


def answer(data: bytes) -> bytes:
    """What `Lines` says to it."""
    lines = data.split(b"\n")[:-1]
    return b"".join(b"%d:%s\n" % (number, line) for number, line in enumerate(lines, 1))


class Noted(Protocol):
    """Writes down each call, of all its instances in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append(data.decode())

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append(f"lost {type(exc).__name__}" if exc else "lost")

    def freeze(self) -> bytes | None:
        self.calls.append("freeze")
        return b"state"

    def thaw(self, state: bytes) -> None:
        self.calls.append(f"thaw {state.decode()}")

    def draining(self) -> None:
        self.calls.append("draining")


class Side:
    """One worker: a loop, a service, and whom it takes connections from."""

    def __init__(
        self, factory: Callable[[], Any] = Lines, name: str = "test", **settings: Any
    ) -> None:
        self.loop = EventLoop()
        self.service = Service(self.loop, name, factory, **settings)
        self.receiver = Receiver(self.loop)
        self.receiver.services = {name: self.service}
        self.alive = True

    def accept(self, pair: Callable[[], Any] = unix_pair) -> tuple[Transport, socket.socket]:
        """A connection that is served here, and the client's end of it."""
        ours, theirs = pair()
        before = set(self.service.transports)
        peer = ours.getpeername()
        self.service.open(ours.detach(), peer)
        (transport,) = set(self.service.transports) - before
        return transport, theirs

    def protocols(self) -> list[Any]:
        """Of all connections here."""
        return [transport.get_protocol() for transport in self.service.transports]

    def die(self) -> None:
        """As a killed process: every descriptor is closed."""
        self.alive = False
        for sock in self.receiver._donors:
            sock.close()
        for transport in self.service.transports:
            transport.get_extra_info("socket").close()
        self.loop.close()


class World:
    """All sides, and what their donors told."""

    def __init__(self) -> None:
        self.sides: list[Side] = []
        self.donors: list[Donor] = []
        self.clients: list[socket.socket] = []
        self.stuck: list[Transport] = []
        self.done: list[int] = []

    def side(self, *args: Any, **settings: Any) -> Side:
        """One side more."""
        self.sides.append(Side(*args, **settings))
        return self.sides[-1]

    def connect(self, side: Side, count: int, pair: Any = unix_pair) -> list[socket.socket]:
        """So many clients."""
        clients = [side.accept(pair)[1] for _ in range(count)]
        self.clients += clients
        return clients

    def donor(self, side: Side) -> Donor:
        """A donor that tells us everything."""
        rows = self.sides
        made = Donor(
            side.loop, lambda row: rows[row].service.live, self.stuck.append, self.done.append
        )
        self.donors.append(made)
        return made

    def join(self, donor: Donor, *heirs: Side) -> None:
        """Socketpairs between them."""
        for heir in heirs:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            heir.receiver.add_donor(far.detach())
            donor.add_heirs({self.sides.index(heir): near.detach()})

    def give(self, side: Side, *heirs: Side, limit: int | None = None) -> Donor:
        """Begin to give all connections to the heirs."""
        donor = self.donor(side)
        self.join(donor, *heirs)
        donor.give([side.service], limit)
        return donor

    def turn(self) -> None:
        """One turn for everybody who lives."""
        for side in self.sides:
            if side.alive:
                turn(side.loop)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Turn until it is true."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what or condition}"
            self.turn()

    def settle(self, turns: int = 10) -> None:
        """Enough turns for whatever is under way."""
        for _ in range(turns):
            self.turn()

    def expect(self, client: socket.socket, data: bytes) -> None:
        """Exactly these bytes come, and nothing after them."""
        got = b""

        def look() -> bool:
            nonlocal got
            got += receive(client) or b""
            return len(got) >= len(data)

        self.until(look, f"{data[:40]!r}")
        self.settle(3)
        got += receive(client) or b""
        assert got == data

    def check_all(self, clients: list[socket.socket], number: int = 1) -> None:
        """Each of them is served by `Lines`, whose line number `number` this is."""
        for client in clients:
            client.send(b"x\n")
        for client in clients:
            self.expect(client, b"%d:x\n" % number)

    def close(self) -> None:
        """Close all there is."""
        for client in self.clients:
            client.close()
        for side in self.sides:
            if side.alive:
                with contextlib.suppress(OSError):
                    self.settle(1)
                for transport in side.service.transports:
                    transport.abort()
                side.receiver.close()
                for _ in range(3):
                    turn(side.loop)
                side.die()
        for donor in self.donors:  # one may be about to try again
            for heir in donor._heirs:
                heir.sock.close()


class Puppet:
    """An heir that does what the test says."""

    def __init__(self, world: World, donor: Donor) -> None:
        near, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        row = len(world.sides)
        world.sides.append(Side())
        donor.add_heirs({row: near.detach()})

    def take(self) -> tuple[int, list[int]]:
        """Receive a batch: its number and the descriptors."""
        received = handoff._receive(self.sock)
        assert received is not None
        return decode_batch(received[0]).number, received[1]

    def confirm(self, number: int, taken: int) -> None:
        """Send a receipt."""
        self.sock.send(encode(Receipt(number, taken)))


@contextlib.contextmanager
def open_world() -> Iterator[World]:
    """A world that is closed in the end; then there must be no descriptor that was not before."""
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    world = World()
    try:
        yield world
    finally:
        world.close()
    gc.collect()
    left = set(os.listdir("/proc/self/fd")) - before
    assert not left, f"descriptors left open: {[(fd, _target(fd)) for fd in sorted(left)]}"


def _target(fd: str) -> str:
    """What a descriptor is open on."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return "closed meanwhile"
