"""TLS against asyncio's own: the same script on both must leave the same trace.

What each callback gets and their order, and what the peer sees; not when connection_lost comes,
for which asyncio waits for the peer's goodbye (and then calls eof_received after close()). Where
asyncio's TLS has less than its plain transport (half-close; pause_writing after one long write),
epolld has the same as on a plain connection: that is in test_tls.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from certificates import Authority
from stage import Scripts, SocketStage, perform
from tls_peer import TlsPeer
from wiring import Notes, narrow, reset, tcp_pair

from epolld.net.handshake import TlsServer
from epolld.net.service import Service


class Stage(SocketStage):
    """One whose peer speaks TLS."""

    def __init__(self, engine: str, notes: Notes, ca: Authority, context: ssl.SSLContext) -> None:
        ours, theirs = tcp_pair()
        narrow(ours, theirs)
        self.peer = TlsPeer(theirs, ca.client())
        super().__init__(engine, notes, self.peer, theirs)
        if self.on_asyncio:
            connect = self.loop.connect_accepted_socket(lambda: notes, ours, ssl=context)
            connecting = self.loop.create_task(connect)
        else:
            service = Service(self.loop, "test", lambda: notes)
            service.speak_tls(TlsServer(self.loop, context))
            service.open(ours.detach(), ("192.0.2.7", 1))
        self.until(lambda: self.peer.shake_hands() and notes.transport)
        if self.on_asyncio:
            self.until(connecting.done)


SCRIPTS = Scripts()
script = SCRIPTS.script


@script(data_received=lambda p, data: p.transport.write(data.upper()))
def echo_then_goodbye(s: Stage) -> None:
    s.peer.say(b"hello")
    s.until(lambda: s.notes.data and (s.peer.read() or s.peer.data))
    s.theirs.sendall(s.peer.goodbye())
    s.read_to_end()
    s.lost()


@script(connection_made=lambda p: p.transport.write(b"welcome"))
def words_of_welcome(s: Stage) -> None:
    s.until(lambda: s.peer.read() or s.peer.data)
    s.say(bytes(s.peer.data))


@script()
def a_reset(s: Stage) -> None:
    reset(s.theirs)
    s.lost()
    s.transport.write(b"more")


@script()
def pausing(s: Stage) -> None:
    s.transport.pause_reading()
    s.say(s.transport.is_reading())
    s.peer.say(b"one")
    s.settle()
    s.transport.resume_reading()
    s.say(s.transport.is_reading())
    s.until(lambda: s.notes.data)


@script()
def all_kinds_of_bytes(s: Stage) -> None:
    s.transport.write(bytearray(b"a"))
    s.transport.write(memoryview(b"b"))
    s.transport.writelines([b"c", b"", bytearray(b"d")])
    s.transport.write(b"")
    with pytest.raises(TypeError):
        s.transport.write("text")
    s.until(lambda: s.peer.read() or len(s.peer.data) == 4)
    s.say(bytes(s.peer.data))


@script()
def facts(s: Stage) -> None:
    info = s.transport.get_extra_info
    s.say(info("cipher"), info("compression"), info("peercert"), info("nonsense", 5))
    s.say(type(info("ssl_object")), type(info("sslcontext")))


@script(eof_received=lambda p: p.transport.write(b"last words"))
def last_words(s: Stage) -> None:
    s.theirs.sendall(s.peer.goodbye())
    s.read_to_end()
    s.lost()


def trace_of(
    engine: str, run: Callable[[Stage], None], on: Any, ca: Authority, context: ssl.SSLContext
) -> tuple[list[Any], list[Any]]:
    """Run the script on one engine; returns the calls, exceptions as their types, and the facts."""
    plain = perform(Stage(engine, Notes(**on), ca, context), run)
    calls = [entry for entry in plain if entry[0] != "said"]
    return calls, [entry for entry in plain if entry[0] == "said"]


@pytest.mark.parametrize(("run", "on"), SCRIPTS)
def test_same_trace(
    run: Callable[[Stage], None], on: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ca = Authority(tmp_path_factory.mktemp("ca"))
    pair = ca.issue("x")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair["certificate"], pair["key"])
    expected = trace_of("asyncio", run, on, ca, context)
    assert trace_of("epolld", run, on, ca, context) == expected
