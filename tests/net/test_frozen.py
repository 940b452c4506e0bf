"""A transport while it is frozen, and what it is when it comes back or arrives."""

from __future__ import annotations

from typing import Any

import pytest
from movers import Noted, Puppet, World
from wiring import narrow, receive, tcp_pair, turn

from epolld.net.transport import Transport

# -- while frozen ------------------------------------------------------------------------------


def test_write_while_frozen_then_unfrozen(world: World) -> None:
    side = world.side()
    transport, client = side.accept(tcp_pair)
    world.clients.append(client)
    frozen = transport.freeze()
    assert frozen is not None
    transport.write(b"wr")
    transport.write(b"itten")
    world.settle()
    assert receive(client) is None
    transport.unfreeze(frozen)
    world.expect(client, b"written")
    client.send(b"x\n")
    world.expect(client, b"1:x\n")


def test_unsent_bytes_keep_their_place_when_it_comes_back(world: World) -> None:
    side = world.side()
    transport, client = side.accept(tcp_pair)
    world.clients.append(client)
    narrow(transport.get_extra_info("socket"))
    data = bytes(n % 251 for n in range(500_000))
    transport.write(data)
    frozen = transport.freeze()
    assert frozen is not None
    assert frozen.unsent
    transport.unfreeze(frozen)
    got = bytearray(receive(client) or b"")  # there is room now for what comes later
    assert got
    transport.write(b"tail")
    transport.close()
    world.until(lambda: not got.extend(receive(client) or b"") and got.endswith(b"tail"))
    assert bytes(got) == data + b"tail"


def test_nothing_is_read_while_frozen(world: World) -> None:
    """Neither the events of this turn nor a hang-up touch it."""
    side = world.side(Noted)
    transport, client = side.accept(tcp_pair)
    frozen = transport.freeze()
    assert frozen is not None
    client.send(b"x")
    client.close()
    for events in (1, 4, 1 | 4, 0x10 | 0x8, 0x2001, 0x2019):
        transport.on_ready(events)
    world.settle()
    protocol = transport.get_protocol()
    assert protocol.calls == ["made", "freeze"]
    transport.unfreeze(frozen)
    world.until(lambda: not side.service.live)
    assert protocol.calls == ["made", "freeze", "x", "lost"]
    assert transport.get_protocol() is None  # as asyncio's


def test_stale_event_of_the_same_turn(world: World) -> None:
    """One connection's callback freezes the other, whose event has been fetched already."""
    side = world.side(Noted)
    (a, client_a), (b, client_b) = side.accept(), side.accept()
    world.clients += [client_a, client_b]
    other = {a: b, b: a}
    frozen: list[Any] = []
    for transport in (a, b):
        protocol = transport.get_protocol()
        real = protocol.data_received

        def hook(data: bytes, transport: Transport = transport, real: Any = real) -> None:
            real(data)
            if not frozen:
                frozen.append((other[transport], other[transport].freeze()))

        protocol.data_received = hook
    client_a.send(b"x")
    client_b.send(b"x")
    turn(side.loop)
    ((transport, rest),) = frozen
    assert "x" not in transport.get_protocol().calls
    transport.unfreeze(rest)
    world.until(lambda: "x" in transport.get_protocol().calls)


def test_timer_while_frozen_is_late_not_lost(world: World) -> None:
    side = world.side()
    transport, client = side.accept()
    world.clients.append(client)
    called: list[int] = []
    transport.call_later(0, lambda: called.append(1))
    frozen = transport.freeze()
    assert frozen is not None
    world.settle()
    assert not called
    transport.unfreeze(frozen)
    world.until(lambda: called)
    world.settle()
    assert called == [1]


def test_timer_of_a_connection_that_left(world: World) -> None:
    old, new = world.side(), world.side()
    transport, client = old.accept()
    world.clients.append(client)
    called: list[int] = []
    transport.call_later(0.01, lambda: called.append(1))
    world.give(old, new)
    world.until(lambda: world.done)
    late: list[int] = []
    old.loop.call_later(0.15, lambda: late.append(1))
    world.until(lambda: late)
    assert not called


def test_timer_put_off_while_frozen_can_be_cancelled(world: World) -> None:
    side = world.side()
    transport, client = side.accept()
    world.clients.append(client)
    called: list[int] = []
    timer = transport.call_later(0, lambda: called.append(1))
    frozen = transport.freeze()
    assert frozen is not None
    world.settle()
    transport.unfreeze(frozen)
    timer.cancel()
    late: list[int] = []
    side.loop.call_later(0.15, lambda: late.append(1))
    world.until(lambda: late)
    assert not called


@pytest.mark.parametrize("what", ["close", "abort", "pause_reading", "write_eof"])
def test_other_calls_while_frozen_then_unfrozen(world: World, what: str) -> None:
    """By a timer of the user's, or by another connection's protocol."""
    side = world.side()
    transport, client = side.accept(tcp_pair)
    world.clients.append(client)
    frozen = transport.freeze()
    assert frozen is not None
    getattr(transport, what)()
    transport.unfreeze(frozen)
    world.settle()
    if what == "pause_reading":
        assert not transport.is_reading()
    else:
        assert receive(client) == b""


def test_reading_is_resumed_while_frozen(world: World) -> None:
    side = world.side()
    transport, client = side.accept()
    world.clients.append(client)
    transport.pause_reading()
    client.send(b"x\n")
    frozen = transport.freeze()
    assert frozen is not None
    assert transport.freeze() is None  # once is enough
    transport.resume_reading()
    world.settle()
    assert receive(client) is None
    transport.unfreeze(frozen)
    world.expect(client, b"1:x\n")


def test_idle_time_travels(world: World) -> None:
    """Else a reload now and then keeps a dead client for ever."""
    old, new = world.side(idle_timeout=60), world.side(idle_timeout=60)
    transport, client = old.accept()
    world.clients.append(client)
    transport.last_active -= 59.9
    world.give(old, new)
    world.until(lambda: world.done)
    assert new.service._idle is not None
    deadline = new.service._idle._wheel.next_deadline()
    assert deadline is not None
    assert deadline < new.loop.now + 10


def test_idle_time_is_over_while_frozen(world: World) -> None:
    """The other worker has it, or it ends here once it is back."""
    old = world.side(idle_timeout=0.05)
    (client,) = world.connect(old, 1)
    donor = world.donor(old)
    heir = Puppet(world, donor)
    donor.give([old.service])
    late: list[int] = []
    old.loop.call_later(0.15, lambda: late.append(1))
    world.until(lambda: late)
    heir.sock.close()
    world.until(lambda: world.done)
    world.until(lambda: not old.service.live)
    world.settle()
    assert receive(client) == b""
