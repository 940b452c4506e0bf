"""The built-in services, on a transport that only takes notes; chargen also on a real one."""

import calendar
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from epolld.errors import PathError
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.net.transport import Transport
from epolld.services import daytime, qotd
from epolld.services import time as time_service
from epolld.services.chargen import BLOCK, PRINTABLE, ROUND, Chargen
from epolld.services.discard import Discard
from epolld.services.echo import Echo
from epolld.services.upper import Upper


class Notes:
    """A transport that writes down the calls; `room` is what its peer takes before a pause."""

    def __init__(self, protocol: Protocol, room: float = float("inf")) -> None:
        self.protocol = protocol
        self.room = room
        self.calls: list[str] = []
        self.sent = b""
        self.later: list[Callable[[], object]] = []
        protocol.connection_made(cast(Transport, self))

    def write(self, data: bytes) -> None:
        assert "close" not in self.calls
        self.sent += data
        self.room -= len(data)
        if self.room < 0:
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return "close" in self.calls

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        assert delay == 0
        self.later.append(callback)

    def set_write_buffer_limits(self, high: int) -> None:
        self.calls.append(f"limit {high}")

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


def answer(protocol: Protocol) -> bytes:
    """What a service that answers and closes has sent."""
    notes = Notes(protocol)
    protocol.data_received(b"ignored")
    assert notes.calls == ["close"]
    return notes.sent


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (Upper, b"HELLO, \xe4 \xc3\xa4 \x00 Z"),
        (Echo, b"hello, \xe4 \xc3\xa4 \x00 z"),
        (Discard, b""),
    ],
)
def test_answers(protocol: type[Protocol], expected: bytes) -> None:
    one = protocol()
    notes = Notes(one)
    for piece in (b"hel", b"lo, \xe4 \xc3", b"\xa4 \x00 z"):
        one.data_received(piece)
    assert notes.sent == expected
    assert not one.eof_received()  # so the transport closes, after what is buffered
    assert notes.calls == []


@pytest.mark.parametrize("protocol", [Upper, Echo])
def test_who_does_not_read_is_not_read(protocol: type[Protocol]) -> None:
    one = protocol()
    notes = Notes(one)
    one.pause_writing()
    assert notes.calls == ["pause_reading"]
    one.resume_writing()
    assert notes.calls == ["pause_reading", "resume_reading"]


def test_daytime(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.struct_time((1982, 2, 22, 17, 37, 43, 0, 53, 0), {"tm_zone": "PST"})
    monkeypatch.setattr(daytime.time, "strftime", lambda form: _strftime(form, clock))
    assert answer(daytime.Daytime()) == b"Monday, February 22, 1982 17:37:43-PST\r\n"
    assert answer(daytime.Daytime(format="%d.%m. um %H Uhr é")) == b"22.02. um 17 Uhr ?\r\n"


def _strftime(form: str, clock: time.struct_time, strftime: Any = time.strftime) -> str:
    return cast(str, strftime(form.replace("%Z", clock.tm_zone), clock))


@pytest.mark.parametrize(
    ("date", "expected"),
    [  # the examples of RFC 868, and the end of its first era
        ((1970, 1, 1, 0, 0, 0), 2_208_988_800),
        ((1976, 1, 1, 0, 0, 0), 2_398_291_200),
        ((1980, 1, 1, 0, 0, 0), 2_524_521_600),
        ((1983, 5, 1, 0, 0, 0), 2_629_584_000),
        ((2036, 2, 7, 6, 28, 15), 2**32 - 1),
        ((2036, 2, 7, 6, 28, 16), 0),
    ],
)
def test_time(date: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = calendar.timegm((*date, 0, 0, 0)) + 0.75
    monkeypatch.setattr(time_service.time, "time", lambda: now)
    assert answer(time_service.Time()) == expected.to_bytes(4, "big")


# -- qotd --------------------------------------------------------------------------------------


def test_qotd_default_is_short_ascii() -> None:
    sent = answer(qotd.Qotd())
    assert re.fullmatch(rb"[ -~]{1,509}\r\n", sent)


def test_qotd_changes_by_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    quotes = ["a", "b", "c"]
    sent = []
    for day in (0, 0.99, 1, 2, 3):
        monkeypatch.setattr(qotd.time, "time", lambda day=day: day * 86400)
        sent.append(answer(qotd.Qotd(quotes=quotes)))
    assert sent == [b"a\r\n", b"a\r\n", b"b\r\n", b"c\r\n", b"a\r\n"]


def test_qotd_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fortunes"
    file.write_text("%\none\n\ntwo  \n  -- me\n%\n\n% \n100 % sure\n%\n")
    assert qotd.read_quotes(str(file)) == ("one\n\ntwo\n  -- me", "100 % sure")
    monkeypatch.setattr(qotd.time, "time", lambda: 0)
    assert answer(qotd.Qotd(file=str(file))) == b"one\r\n\r\ntwo\r\n  -- me\r\n"
    monkeypatch.setattr(qotd.time, "time", lambda: 2 * 86400)
    assert answer(qotd.Qotd(file=str(file), quotes=["more"])) == b"more\r\n"


def test_qotd_file_that_does_not_do(tmp_path: Path) -> None:
    with pytest.raises(PathError, match="No such file"):
        qotd.Qotd(file=str(tmp_path / "none"))
    (tmp_path / "empty").write_text("%\n%\n")
    with pytest.raises(PathError, match="holds no quotes"):
        qotd.Qotd(file=str(tmp_path / "empty"))


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_qotd_limit(letter: str) -> None:
    size = len(letter.encode())
    fits = letter * (509 // size)
    assert qotd.render(fits) == fits.encode() + b"\r\n"
    cut = qotd.render(letter * 510)
    assert 511 - size < len(cut) <= 511
    assert cut.decode().rstrip("\r\n").rstrip(".") == letter * (506 // size)


# -- chargen -----------------------------------------------------------------------------------


def test_chargen_pattern() -> None:
    lines = ROUND.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) == 95
    assert all(len(line) == 72 for line in lines)
    # The figure in RFC 864, its first two lines.
    assert lines[0].startswith(b" !\"#$%&'()*+,-./0123456789:;<=>?@ABC")
    assert lines[1].startswith(b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCD")
    for line, after in zip(lines, lines[1:] + lines[:1], strict=True):
        assert line[1:] == after[:-1]
        assert (PRINTABLE.index(after[-1]) - PRINTABLE.index(line[-1])) % 95 == 1
    assert len(BLOCK) % len(ROUND) == 0


def test_chargen_sends_one_block_a_turn() -> None:
    notes = Notes(Chargen())
    for turns in range(1, 4):
        assert notes.sent == BLOCK * turns
        assert len(notes.later) == 1
        notes.later.pop()()


def test_chargen_waits_for_a_slow_client() -> None:
    chargen = Chargen()
    notes = Notes(chargen, room=1.5 * len(BLOCK))
    notes.later.pop()()
    assert notes.sent == BLOCK * 2
    assert notes.later == []
    assert chargen.eof_received()  # a half-closed client goes on receiving
    notes.room = float("inf")
    chargen.resume_writing()
    assert notes.sent == BLOCK * 3
    assert len(notes.later) == 1


def test_chargen_stops_when_closing() -> None:
    chargen = Chargen()
    notes = Notes(chargen)
    notes.calls.append("close")
    notes.later.pop()()
    chargen.resume_writing()
    assert notes.sent == BLOCK
    assert notes.later == []


def test_chargen_on_a_real_transport() -> None:
    loop = EventLoop()
    service = Service(loop, "chargen", Chargen, on_change=lambda _step: service.live or loop.stop())
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    theirs.shutdown(socket.SHUT_WR)
    received = bytearray()
    largest = 0

    def read(_events: int) -> None:
        nonlocal largest
        received.extend(theirs.recv(10_000))
        largest = max([largest, *(one.get_write_buffer_size() for one in service.transports)])
        if len(received) >= 1_000_000:
            loop.unregister(theirs.fileno())
            theirs.close()

    loop.register(theirs.fileno(), 1, read)
    service.open(ours.detach(), "")
    loop.run()
    loop.close()
    assert received == (BLOCK * (len(received) // len(BLOCK) + 1))[: len(received)]
    assert len(received) >= 1_000_000
    assert 0 < largest <= len(BLOCK)
