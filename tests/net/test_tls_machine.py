"""TLS under any cutting and any damage: what goes in comes out, or nothing does and it ends."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from certificates import Authority
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tls import ECHO, V12, V13, Stage
from wiring import settle, turn

from epolld.net.loop import EventLoop
from epolld.net.tls import TlsTransport

MANY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(name="begin")
def _begin(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[dict[str, Any]], Stage]]:
    ca = Authority(tmp_path_factory.mktemp("ca"))
    pair = ca.issue("x")
    made: list[Stage] = []

    def begin(version: dict[str, Any]) -> Stage:
        for each in made:
            each.theirs.close()
            settle(each.loop)
            each.loop.close()
        made[:] = [Stage(EventLoop(), ca, pair, ECHO, **version)]
        return made[0]

    yield begin
    for each in made:
        each.theirs.close()
        settle(each.loop)
        each.loop.close()


def send(s: Stage, data: bytes, cuts: list[int]) -> None:
    """In pieces, with a turn of the loop after each."""
    begin = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        if data[begin:cut]:
            s.theirs.sendall(data[begin:cut])
            turn(s.loop)
        begin = cut


cuts = st.lists(st.integers(0, 1 << 16), max_size=5)
versions = st.sampled_from([V12, V13])


@MANY
@given(versions, cuts, st.lists(st.tuples(st.binary(min_size=1, max_size=20000), cuts), max_size=3))
def test_any_cutting(
    begin: Callable[[dict[str, Any]], Stage],
    version: dict[str, Any],
    hello: list[int],
    messages: list[tuple[bytes, list[int]]],
) -> None:
    s = begin(version)
    while not s.peer.secured:
        s.peer.step()
        send(s, s.peer.sealed(), hello)
        settle(s.loop, 3)
        s.peer.take()
    said = b""
    for data, pieces in messages:
        said += data
        send(s, s.peer.seal(data), pieces)
        s.until(lambda: s.peer.read() or len(s.peer.data) >= len(said))  # noqa: B023
    assert s.peer.data == said
    send(s, s.peer.goodbye(), hello)
    s.ended()
    assert s.notes.names[-2:] == ["eof_received", "connection_lost"]
    assert s.service.closed == {"eof": 1}


@MANY
@given(versions, st.data())
def test_any_damage_to_what_follows_the_handshake(
    begin: Callable[[dict[str, Any]], Stage], version: dict[str, Any], draw: st.DataObject
) -> None:
    s = begin(version).secure()
    sealed = bytearray(s.peer.seal(b"one") + s.peer.seal(b"two") + s.peer.goodbye())
    at = draw.draw(st.integers(0, len(sealed) - 1))
    kind = draw.draw(st.sampled_from(["change", "drop", "cut"]))
    if kind == "change":
        sealed[at] ^= draw.draw(st.integers(1, 255))
    elif kind == "drop":
        del sealed[at]
    else:
        del sealed[at:]
    s.theirs.sendall(sealed)
    settle(s.loop, 3)
    s.theirs.shutdown(1)
    s.ended()
    assert b"onetwo".startswith(s.notes.data)
    assert "eof_received" not in s.notes.names  # only the true close_notify is an end
    assert isinstance(s.notes.exc, ssl.SSLError)
    assert set(s.service.closed) <= {"protocol_error", "truncated"}


@MANY
@given(versions, st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_any_damage_to_the_hello(
    begin: Callable[[dict[str, Any]], Stage],
    version: dict[str, Any],
    noise: bytes,
    at: int,
    flip: int,
) -> None:
    """Nothing of it reaches the protocol, whatever OpenSSL makes of it."""
    s = begin(version)
    s.peer.step()
    hello = bytearray(s.peer.sealed())
    hello[at % len(hello)] ^= flip
    s.theirs.sendall(hello + noise)
    settle(s.loop, 3)
    s.theirs.close()
    s.ended()
    assert s.notes.trace == []
    assert sum(s.service.refused.values()) == 1
    assert not isinstance(s.transport, TlsTransport)
