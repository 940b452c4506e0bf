"""The conversation between master and worker, over real socketpairs."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import msgspec
import pytest
from msgspec.structs import fields

from epolld.channel import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE,
    MAX_TEXT,
    Channel,
    ChannelClosed,
    Failed,
    Message,
    ReopenLog,
    Selection,
    Serve,
    Stop,
    fit_text,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """The master's end and the worker's."""
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def raw() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the bare socket at its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


SAMPLES = {
    "int": 3,
    "float": 2.5,
    "str": 'häm\n"x"',
    "bool": True,
    "list[str]": ["a"],
    "list[int]": [1, 2],
    "Selection": Selection([2**63], "upper", ["192.0.2.0/24"], 2.5),
    "msgspec.Raw": msgspec.Raw(b'[{"id":"1"}]'),
}


def sample(kind: type[Message]) -> Message:
    """A message of this kind with something in each field."""
    return kind(**{f.name: SAMPLES[kind.__annotations__[f.name]] for f in fields(kind)})


@pytest.mark.parametrize(
    "message", [sample(kind) for kind in Message.__subclasses__()], ids=lambda m: type(m).__name__
)
def test_every_message_travels_both_ways(ends, message) -> None:
    for source, target in (ends, ends[::-1]):
        assert source.send(message)
        assert target.receive() == (message, ())


def test_order_and_boundaries_are_kept(ends) -> None:
    sent = [Failed("", n) for n in range(20)]
    assert all(ends[0].send(m) for m in sent)
    assert [ends[1].receive()[0] for _ in sent] == sent
    assert ends[1].receive() is None


def test_nothing_there_is_none_and_does_not_block(ends) -> None:
    assert ends[0].receive() is None


def test_end_of_file_comes_after_the_last_words(ends) -> None:
    ends[1].send(Failed("why", 78))
    ends[1].close()
    assert ends[1].fileno() == -1
    assert ends[0].receive() == (Failed("why", 78), ())
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            ends[0].receive()


def test_end_with_our_words_unread_is_end_of_file_too(ends) -> None:
    ends[0].send(Stop())
    ends[1].close()
    with pytest.raises(ChannelClosed):
        ends[0].receive()


def test_the_death_of_the_process_closes_its_end(ends) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert ends[0].receive() is None  # our own copy of the other end is still open
    ends[1].close()
    with pytest.raises(ChannelClosed):
        ends[0].receive()


def test_sending_to_the_dead_is_false(ends) -> None:
    ends[1].close()
    assert ends[0].send(Stop()) is False


def test_a_full_socket_is_false_and_nothing_blocks(ends) -> None:
    for _ in range(100_000):
        if not ends[0].send(Serve()):
            break
    else:
        pytest.fail("an unread socket never filled")
    assert ends[0].send(ReopenLog(), (0,)) is False
    assert ends[1].receive() == (Serve(), ())
    assert ends[0].send(Stop())  # there is room again


@pytest.mark.parametrize(
    "garbage",
    [
        b"x",
        b"{}",
        b"[]",
        b'{"type":"Nope"}',
        b'{"type":"Failed"}',
        b'{"type":"Failed","reason":1}',
        b"\xff\xfe",
        b"\x00" * 100,
    ],
)
def test_garbage_is_a_value_error_and_the_next_message_is_read(raw, garbage) -> None:
    channel, other = raw
    other.send(garbage)
    other.send(b'{"type":"Stop"}')
    with pytest.raises(ValueError, match="not a message"):
        channel.receive()
    assert channel.receive() == (Stop(), ())


def test_a_message_too_long_is_a_value_error(raw) -> None:
    channel, other = raw
    other.send(b'{"type":"Stop"}' + b" " * MAX_MESSAGE)
    with pytest.raises(ValueError, match="truncated"):
        channel.receive()


def test_a_descriptor_travels(ends) -> None:
    read, write = os.pipe()
    assert ends[0].send(ReopenLog(), (write,))
    os.close(write)
    message, (got,) = ends[1].receive()
    assert message == ReopenLog()
    os.write(got, b"hello")
    assert os.read(read, 10) == b"hello"
    os.close(got)
    os.close(read)


def test_a_received_descriptor_is_closed_on_exec(ends) -> None:
    assert ends[0].send(ReopenLog(), (0,))
    _, (got,) = ends[1].receive()
    inheritable = os.get_inheritable(got)
    os.close(got)
    assert not inheritable


def test_many_descriptors_travel_and_one_more_does_not(ends) -> None:
    before = descriptors()
    assert ends[0].send(ReopenLog(), (0,) * MAX_DESCRIPTORS)
    _, got = ends[1].receive()
    assert len(got) == MAX_DESCRIPTORS
    for fd in got:
        os.close(fd)
    assert ends[0].send(ReopenLog(), (0,) * (MAX_DESCRIPTORS + 1)) is False
    assert descriptors() == before


def test_descriptors_that_come_with_garbage_are_closed(raw) -> None:
    channel, other = raw
    before = descriptors()
    socket.send_fds(other, [b"garbage"], [0, 1])
    socket.send_fds(other, [b" " * (MAX_MESSAGE + 1)], [0])
    for _ in range(2):
        with pytest.raises(ValueError, match="not a message"):
            channel.receive()
    assert descriptors() == before


def test_it_can_be_watched(ends) -> None:
    poll = select.poll()
    poll.register(ends[1].fileno(), select.POLLIN)
    assert poll.poll(0) == []
    ends[0].send(Serve())
    assert poll.poll(0)


@pytest.mark.parametrize("letter", ["x", '"', "\n", "é"])
def test_the_longest_text_fits(ends, letter: str) -> None:
    message = Failed(letter * MAX_TEXT, 70)
    assert ends[0].send(message)
    assert ends[1].receive() == (message, ())


@pytest.mark.parametrize("letter", ["\x1b", "\U0001f600"])
def test_the_longest_text_of_wide_letters_fits(ends, letter: str) -> None:
    message = Failed(letter * MAX_TEXT, 70)
    assert ends[0].send(message)
    assert ends[1].receive() == (message, ())


def test_a_reason_with_an_undecodable_file_name_travels(ends) -> None:
    assert ends[0].send(Failed(fit_text("no such file: " + os.fsdecode(b"/tmp/\xff")), 70))
    assert isinstance(ends[1].receive()[0], Failed)
