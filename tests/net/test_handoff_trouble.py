"""net/handoff.py when things go wrong: whoever dies, refuses or has no room, nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from movers import Lines, Puppet, World
from wiring import narrow, receive, tcp_pair, turn

from epolld.net import handoff
from epolld.net.frozen import BATCH


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


class Reluctant(Lines):
    """Moves only between lines."""

    def freeze(self) -> bytes | None:
        return None if self.part else super().freeze()


# -- the heir dies -----------------------------------------------------------------------------


@pytest.mark.parametrize("received", [False, True], ids=["unread", "read"])
def test_heir_dies_before_its_receipt(world: World, received: bool) -> None:
    old = world.side()
    clients = world.connect(old, 5)
    donor = world.donor(old)
    heir = Puppet(world, donor)
    donor.give([old.service])
    for client in clients:  # comes while the connections are under way
        client.send(b"early\n")
    turn(old.loop)
    assert all(transport.is_closing() for transport in old.service.transports)
    if received:
        close_all(heir.take()[1])
    heir.sock.close()
    for client in clients:
        world.expect(client, b"1:early\n")
    assert world.done == [0]
    assert old.service.live == 5


def test_heir_dies_after_its_receipt(world: World) -> None:
    """What it had acknowledged was its own."""
    old = world.side()
    clients = world.connect(old, 3)
    donor = world.donor(old)
    heir = Puppet(world, donor)
    donor.give([old.service])
    number, fds = heir.take()
    heir.confirm(number, 3)
    heir.sock.close()
    close_all(fds)
    world.until(lambda: world.done)
    assert world.done == [3]
    world.until(lambda: old.service.live == 0)
    world.settle()
    assert [receive(client) for client in clients] == [b""] * 3


def test_heir_dies_with_a_batch_unread_after_receipts(world: World) -> None:
    """The kernel reports ECONNRESET before it hands out the receipts that came earlier."""
    old = world.side()
    clients = world.connect(old, 2 * BATCH)
    donor = world.donor(old)
    heir = Puppet(world, donor)
    donor.give([old.service])
    number, fds = heir.take()
    heir.confirm(number, BATCH)
    heir.sock.close()
    close_all(fds)
    world.until(lambda: world.done)
    assert world.done == [BATCH]
    world.until(lambda: old.service.live == BATCH)
    world.settle()
    ended = [client for client in clients if receive(client) == b""]
    assert len(ended) == BATCH
    world.check_all([client for client in clients if client not in ended])


def test_one_heir_of_two_dies_and_the_other_gets_all(world: World) -> None:
    old, new = world.side(), world.side()
    clients = world.connect(old, 3 * BATCH)
    donor = world.donor(old)
    heir = Puppet(world, donor)
    world.join(donor, new)
    donor.give([old.service])
    close_all(heir.take()[1])
    heir.sock.close()
    world.until(lambda: world.done)
    assert world.done == [3 * BATCH]
    assert new.service.live == 3 * BATCH
    world.check_all(clients)


def test_the_heirs_die_and_another_comes(world: World) -> None:
    old, new = world.side(Reluctant), world.side(Reluctant)
    (client,) = world.connect(old, 1)
    client.send(b"part")
    world.settle()
    donor = world.donor(old)
    heir = Puppet(world, donor)
    donor.give([old.service])
    world.join(donor, new)
    heir.sock.close()
    world.settle()
    assert not donor.is_done()
    client.send(b"\n")
    world.until(lambda: world.done)
    assert new.service.live == 1


def test_heir_leaves_before_it_reads(world: World) -> None:
    """Receiver.close: what was sent goes back."""
    old, new = world.side(), world.side()
    clients = world.connect(old, 5)
    world.give(old, new)
    new.receiver.close()
    world.check_all(clients)
    assert world.done == [0]
    assert (old.service.live, new.service.live) == (5, 0)


# -- the donor dies ----------------------------------------------------------------------------


def test_donor_dies_and_what_it_sent_lives(world: World) -> None:
    old, new = world.side(), world.side()
    clients = world.connect(old, BATCH)
    donor = world.give(old, new)
    turn(new.loop)  # one receipt is unread: the next receive says ECONNRESET
    for heir in donor._heirs:
        heir.sock.close()
    old.die()
    world.until(lambda: new.service.live == BATCH)
    world.check_all(clients)


# -- no room, no memory ------------------------------------------------------------------------


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """This process may open only so many descriptors more."""
    holes = []
    while not holes or holes[-1] <= max(map(int, os.listdir("/proc/self/fd"))) - 2:
        holes.append(os.open("/dev/null", os.O_RDONLY))
    top = max(map(int, os.listdir("/proc/self/fd")))
    while (fd := os.open("/dev/null", os.O_RDONLY)) <= top:
        holes.append(fd)
    os.close(fd)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        close_all(holes)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_heir_with_too_few_descriptors(world: World, count: int) -> None:
    """Only what it could take is its own; the rest goes on, and moves when there is room."""
    old, new = world.side(), world.side()
    clients = world.connect(old, 20)
    world.give(old, new)
    with room_for(count):
        turn(new.loop)
    assert new.service.live == count
    world.until(lambda: old.service.live == 20 - count)
    world.check_all(clients)
    world.until(lambda: world.done)
    assert world.done == [20]
    world.check_all(clients, 2)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_heir_with_too_few_descriptors_for_a_memfd(
    world: World, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = world.side(), world.side()
    transports = [old.accept(tcp_pair) for _ in range(4)]
    world.clients += [client for _, client in transports]
    data = bytes(1_000_000)
    for transport, _ in transports:
        narrow(transport.get_extra_info("socket"))
        transport.write(data)
    world.give(old, new)
    with room_for(count):
        turn(new.loop)
    assert new.service.live == max(0, count - 1)
    assert ("hand-over broken off" in caplog.text) == (count == 0)
    for client in world.clients:
        world.expect(client, data)
    world.check_all(world.clients)


@pytest.mark.parametrize("number", [errno.ETOOMANYREFS, errno.EAGAIN, errno.ENOBUFS])
def test_too_much_in_flight(world: World, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is tried again, and served meanwhile."""
    left = 4
    real = handoff._send

    def send(*args: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OSError(number, os.strerror(number))
        real(*args)

    monkeypatch.setattr(handoff, "_send", send)
    old, new = world.side(), world.side()
    clients = world.connect(old, BATCH + 10)
    world.give(old, new)
    assert left == 3
    for client in clients:
        client.send(b"x\n")
    turn(old.loop)
    assert all(p.count for p in old.protocols())
    world.until(lambda: world.done)
    assert left == 0
    assert world.done == [BATCH + 10]
    for client in clients:
        world.expect(client, b"1:x\n")
    world.check_all(clients, 2)
