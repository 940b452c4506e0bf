"""A protocol in memory: what the peer of the kit sees and does."""

import logging
import os

import pytest

from epolld import Application, Protocol, WorkerContext
from epolld.services.upper import Upper
from epolld.testing import connect


class Counter(Protocol):
    """Numbers each piece; its count travels."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def data_received(self, data: bytes) -> None:
        if data == b"burn":
            raise ZeroDivisionError(data)
        self.count += 1
        self.transport.write(b"%d:%s\n" % (self.count, data))

    def freeze(self) -> bytes | None:
        return b"%d" % self.count if self.count else None

    def thaw(self, state: bytes) -> None:
        self.count = int(state)

    def draining(self) -> None:
        self.transport.write(b"bye\n")
        self.transport.close()


class Alarm(Protocol):
    """Says something at 1, 2 and 4 seconds, then closes."""

    def connection_made(self, transport) -> None:
        self.transport = transport
        for delay in (4, 2, 1):
            transport.call_later(delay, lambda delay=delay: transport.write(b"%d" % delay))
        transport.call_later(4, transport.close)


class Endless(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.call_later(0, lambda: self.data_received(data))


def test_pieces_and_answers() -> None:
    peer = connect(Counter)
    peer.send(b"a", b"b")
    peer.send(b"c")
    assert peer.take(3) == b"1:a"
    assert peer.take() == b"\n2:b\n3:c\n"
    assert peer.ask(b"d") == b"4:d\n"
    assert not peer.ended


def test_a_piece_above_64_kib_is_cut() -> None:
    peer = connect(Counter)
    peer.ask(b"x" * 479)
    peer.ask(b"x" * 70_000)
    assert peer.protocol.count == 3


def test_ends() -> None:
    peer = connect(Upper)
    assert peer.ask(b"a") == b"A"
    peer.half_close()
    assert (peer.ended, peer.cause) == ("EOF", "eof")
    with pytest.raises(AssertionError, match="has ended its direction"):
        peer.send(b"b")
    peer = connect(Upper)
    peer.reset()
    assert peer.cause == "reset"
    peer = connect(Upper)
    peer.protocol.transport.close()
    peer.advance(0)
    assert (peer.ended, peer.cause) == ("EOF", "closed")


def test_backpressure() -> None:
    peer = connect(Upper)
    peer.pause(room=10)
    peer.send(b"x" * 40_000, b"x" * 40_000)
    assert not peer.transport.is_reading()
    assert peer.transport.get_write_buffer_size() == 80_000 - 10
    peer.send(b"y")  # is not read
    assert peer.take() == b"X" * 10
    peer.resume()
    assert peer.transport.is_reading()
    assert peer.take() == b"X" * 79_990 + b"Y"


def test_the_clock() -> None:
    peer = connect(Alarm)
    assert peer.take() == b""
    peer.advance(1)
    assert peer.take() == b"1"
    peer.advance(2.9)
    assert (peer.take(), peer.ended) == (b"2", "")
    peer.advance(100)
    assert (peer.take(), peer.ended) == (b"4", "EOF")


def test_an_idle_connection_is_ended() -> None:
    peer = connect(Upper, idle_timeout=10)
    for _ in range(5):
        peer.advance(9)
        peer.send(b"a")
    assert not peer.ended
    peer.advance(11)
    assert peer.cause == "idle_timeout"


def test_it_moves_with_its_state() -> None:
    peer = connect(Counter)
    assert not peer.move()  # it says "not now"
    old, transport = peer.protocol, peer.transport
    peer.send(b"a")
    peer.pause()
    peer.send(b"b")  # the answer is in our buffer
    assert peer.move(lambda: Counter(start=77))
    assert peer.protocol is not old
    assert transport.is_closed()
    assert peer.transport.id == transport.id
    peer.resume()
    assert peer.ask(b"c") == b"1:a\n2:b\n3:c\n"
    peer.half_close()
    assert peer.cause == "eof"


def test_what_cannot_move_is_told() -> None:
    peer = connect(Counter)
    peer.drain()
    assert (peer.take(), peer.ended) == (b"bye\n", "EOF")
    peer = connect(Upper)
    peer.drain()
    assert not peer.ended
    peer.advance(10)  # it is closed once it is idle
    assert (peer.ended, peer.cause) == ("EOF", "drained")


def test_what_a_callback_raises_is_raised_again(caplog: pytest.LogCaptureFixture) -> None:
    peer = connect(Counter)
    with pytest.raises(ZeroDivisionError):
        peer.send(b"burn")
    assert (peer.ended, peer.cause) == ("EOF", "callback_error")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    peer = connect(Counter, fenced=True)
    peer.send(b"burn")
    assert [type(each) for each in peer.errors] == [ZeroDivisionError]
    assert peer.ended == "EOF"


def test_a_factory_that_raises() -> None:
    with pytest.raises(TypeError):
        connect(lambda: Counter(1, 2))  # type: ignore[call-arg]


def test_an_endless_loop_is_told() -> None:
    with pytest.raises(AssertionError, match="again and again"):
        connect(Endless).send(b"a")


class Pool:
    """An application, of any class."""

    def __init__(self) -> None:
        self.ticks = 0
        self.stopped = False

    def start(self, worker: WorkerContext) -> None:
        self.worker = worker
        worker.call_later(1, self.tick)

    def tick(self) -> None:
        self.ticks += 1
        self.worker.call_later(1, self.tick)

    def stop(self) -> None:
        self.stopped = True


class Ticks(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(b"%d" % self.transport.get_extra_info("application").ticks)

    def freeze(self) -> bytes:
        return b""


def test_an_application_lives_with_its_worker() -> None:
    peer = connect(Ticks, application=Pool)
    peer.advance(3.5)
    assert peer.ask(b"?") == b"3"
    first = peer.application
    assert first.worker.generation == 1
    assert peer.move()
    assert first.stopped
    assert peer.application is not first
    assert peer.application.worker.generation == 2
    peer.advance(1)
    assert peer.ask(b"?") == b"1"
    assert connect(Upper, application=object).ask(b"a") == b"A"


@pytest.mark.filterwarnings("ignore:coroutine")  # it was never awaited, indeed
def test_an_application_of_coroutines_is_refused() -> None:
    class Asynchronous(Application):
        async def start(self, worker: WorkerContext) -> None:
            pass

    with pytest.raises(TypeError, match="epolld_daemon"):
        connect(Upper, application=Asynchronous)


def test_facts() -> None:
    peer = connect(Upper, service="shout", peername=("10.0.0.1", 5))
    facts = peer.transport.get_extra_info
    assert facts("peername") == ("10.0.0.1", 5)
    assert facts("sockname") == ("192.0.2.2", 1688)
    assert facts("service") == "shout"
    assert facts("socket") is None
    assert facts("peercred") is None
    assert facts("worker") == 0


def test_no_descriptor_is_used() -> None:
    before = os.listdir("/proc/self/fd")
    peer = connect(Upper)
    peer.ask(b"a")
    assert os.listdir("/proc/self/fd") == before


def test_what_is_written_while_several_events_are_served_goes_over_the_wire_too() -> None:
    peer = connect(Upper)
    peer._loop.senders = peer._loop._senders  # as in a wake-up with several
    peer.transport.write(b"later")
    peer._loop._settle_senders()
    assert peer.take() == b"later"
