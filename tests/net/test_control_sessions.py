"""master/control.py: clients that are slow, greedy, silent or many; the loop's clock by hand."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wiring import run_until, settle

from epolld.host import controlsocket
from epolld.master import control
from epolld.master.control import MAX_CLIENTS, MAX_LINE, PATIENCE, ControlServer, Session
from epolld.net.loop import EventLoop

Handle = Callable[[Session, bytes], object]


class World:
    """A server whose clock is turned by hand, and its clients."""

    def __init__(self, directory: Path) -> None:
        self.time = 0.0
        self.loop = EventLoop(lambda: self.time)
        self.lines: list[bytes] = []
        self.sessions: list[Session] = []
        self.answer: Handle = lambda session, _line: session.answer("fine")
        self.server = ControlServer(self.loop, self.handle)
        self.place = controlsocket.open_socket(str(directory), None)
        self.server.open(self.place, None)
        self.clients: list[socket.socket] = []

    def handle(self, session: Session, line: bytes) -> None:
        self.lines.append(line)
        self.sessions.append(session)
        self.answer(session, line)

    def client(self) -> socket.socket:
        client = controlsocket.connect(self.place.path, 0)
        self.clients.append(client)
        settle(self.loop)
        return client

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        settle(self.loop)

    def hear(self, client: socket.socket, count: int = 1) -> list[dict[str, Any]]:
        """So many lines that the server sends."""
        data = b""

        def complete() -> bool:
            nonlocal data
            try:
                data += client.recv(1 << 20)
            except BlockingIOError:
                return False
            return data.count(b"\n") >= count

        run_until(self.loop, complete)
        return [json.loads(line) for line in data.splitlines()]

    def is_closed(self, client: socket.socket) -> bool:
        """Whether the server has hung up; what it said before is dropped."""
        settle(self.loop)
        try:
            while client.recv(1 << 20):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_a_request_may_come_byte_by_byte(world: World) -> None:
    client = world.client()
    for byte in b'{"a": 1}\n':
        client.send(bytes([byte]))
        settle(world.loop)
    assert world.hear(client) == [{"ok": True, "result": "fine"}]
    assert world.lines == [b'{"a": 1}']


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(st.binary(min_size=1, max_size=60).filter(lambda x: b"\n" not in x), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_however_it_is_cut_the_lines_are_the_same(
    world: World, lines: list[bytes], cuts: list[int]
) -> None:
    world.lines.clear()
    client = world.client()
    data = b"".join(line + b"\n" for line in lines)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in itertools.pairwise(edges):
        client.send(data[begin:end])
        settle(world.loop, 2)
    expected = [line for line in lines if line.strip()]
    run_until(world.loop, lambda: len(world.lines) == len(expected))
    assert world.lines == expected
    client.close()
    settle(world.loop)


def test_a_line_without_end_is_refused_and_not_kept(world: World) -> None:
    client = world.client()
    sent = 0
    try:
        while sent < 1 << 26:
            sent += client.send(b"x" * 65536)
            settle(world.loop, 1)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < MAX_LINE + (1 << 20)  # what the kernel and one read hold
    assert world.lines == []
    assert not world.server._sessions


def test_the_longest_line_is_taken(world: World) -> None:
    client = world.client()
    line = b"x" * MAX_LINE
    world.loop.call_soon(lambda: None)
    left = memoryview(line + b"\n")
    while left:
        try:
            left = left[client.send(left) :]
        except BlockingIOError:
            settle(world.loop, 1)
    world.hear(client)
    assert world.lines == [line]


def test_who_says_nothing_is_closed_in_time(world: World) -> None:
    silent, slow, busy = world.client(), world.client(), world.client()
    world.answer = lambda session, _line: None  # it takes its time
    busy.send(b"x\n")
    settle(world.loop)
    for _ in range(int(PATIENCE) + 1):
        slow.send(b"x")  # never a whole line
        world.pass_time(1)
        if world.is_closed(slow):
            break
    assert world.is_closed(silent)
    assert world.is_closed(slow)
    assert not world.is_closed(busy)
    world.sessions[0].answer(1)
    assert world.hear(busy)[0]["result"] == 1


def test_each_answer_gives_new_time(world: World) -> None:
    client = world.client()
    for _ in range(3):
        world.pass_time(PATIENCE - 1)
        client.send(b"x\n")
        assert world.hear(client)
    assert not world.is_closed(client)


def test_a_reader_that_stops_is_waited_for_and_given_up(world: World) -> None:
    parts = []

    def stream(session: Session, _line: bytes) -> None:
        def go_on() -> None:
            while session.has_room():
                session.more("x" * 10000)
                parts.append(session)

        session.on_room = go_on
        go_on()

    world.answer = stream
    client = world.client()
    client.send(b"x\n")
    settle(world.loop)
    held = len(parts)
    assert 0 < held < 100  # bounded: what the kernel takes, and ENOUGH
    settle(world.loop, 50)
    assert len(parts) == held  # and it stands
    client.recv(1 << 20)
    settle(world.loop, 50)
    assert len(parts) > held  # room again
    gone = []
    world.sessions[0].on_gone = lambda: gone.append(True)
    world.pass_time(PATIENCE + 1)
    assert world.is_closed(client)
    assert gone == [True]


def test_the_end_of_a_client_amid_an_answer_is_noticed(world: World) -> None:
    gone = []

    def wait(session: Session, _line: bytes) -> None:
        session.on_gone = lambda: gone.append(session)

    world.answer = wait
    client = world.client()
    client.send(b"x\n")
    settle(world.loop)
    client.close()
    settle(world.loop)
    assert gone == world.sessions
    world.sessions[0].answer("too late")  # harmless
    world.sessions[0].more("too late")


def test_half_an_end_is_no_end(world: World) -> None:
    world.answer = lambda session, _line: None
    client = world.client()
    client.send(b"x\ny\nz")
    client.shutdown(socket.SHUT_WR)
    settle(world.loop)
    for number in range(3):
        world.sessions[number].answer(number)
        settle(world.loop)
    assert [each["result"] for each in world.hear(client, 3)] == [0, 1, 2]
    assert world.lines == [b"x", b"y", b"z"]
    assert world.is_closed(client)


def test_who_was_silent_longest_makes_room(world: World) -> None:
    clients = [world.client() for _ in range(MAX_CLIENTS)]
    world.answer = lambda session, _line: None
    clients[0].send(b"x\n")  # waits for its answer
    settle(world.loop)
    world.answer = lambda session, _line: session.answer("fine")
    clients[1].send(b"x\n")  # the last to have asked
    world.hear(clients[1])
    extra = [world.client() for _ in range(3)]
    assert [world.is_closed(each) for each in clients[:6]] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert not any(world.is_closed(each) for each in extra)


def test_when_all_wait_a_further_one_is_told_so(world: World) -> None:
    world.answer = lambda session, _line: None
    for _ in range(MAX_CLIENTS):
        world.client().send(b"x\n")
        settle(world.loop)
    late = world.client()
    assert world.hear(late)[0]["error"] == "busy"
    assert world.is_closed(late)


def test_a_thousand_at_once(world: World) -> None:
    clients = []
    for _ in range(1000):
        try:
            clients.append(controlsocket.connect(world.place.path, 0))
        except BlockingIOError:  # the queue is full
            settle(world.loop)
            clients.append(controlsocket.connect(world.place.path, 0))
    settle(world.loop, 100)
    assert len(world.server._sessions) <= MAX_CLIENTS
    last = world.client()
    last.send(b"x\n")
    assert world.hear(last)[0]["ok"]
    for client in clients:
        client.close()


def test_a_stranger_is_told_so_and_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlsocket, "may_command", lambda *_: False)
    client = world.client()
    assert world.hear(client)[0]["error"] == "denied"
    assert world.is_closed(client)
    assert world.lines == []


def test_a_mistake_of_ours_is_told_and_ends_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_session: Session, _line: bytes) -> None:
        raise RuntimeError("oops")

    world.answer = fail
    client = world.client()
    client.send(b"x\n")
    answer = world.hear(client)[0]
    assert (answer["error"], answer["message"]) == ("internal", "RuntimeError: oops")
    assert "please report it" in caplog.text
    world.answer = lambda session, _line: session.answer("fine")
    client.send(b"x\n")
    assert world.hear(client)[0]["ok"]


def test_a_worker_cannot_smuggle_a_line_into_an_answer(world: World) -> None:
    world.answer = lambda session, _line: session.more_raw(b'[{"a":\n1}]')
    client = world.client()
    client.send(b"x\n")
    assert world.hear(client)[0]["error"] == "internal"


def test_without_descriptors_it_pauses_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        def __getattr__(self, name: str) -> Any:
            return getattr(sock, name)

        def accept(self) -> None:
            calls.append(1)
            raise OSError(24, os.strerror(24))

    calls: list[int] = []
    sock = world.place.sock
    monkeypatch.setattr(world.server, "_place", world.place._replace(sock=Exhausted()))  # type: ignore[arg-type]
    client = controlsocket.connect(world.place.path, 0)
    world.clients.append(client)
    settle(world.loop, 20)
    assert len(calls) == 1  # it does not spin
    monkeypatch.undo()
    world.pass_time(control.NO_DESCRIPTORS + 0.1)
    client.send(b"x\n")
    assert world.hear(client)[0]["ok"]


def test_what_was_said_before_a_refusal_arrives(world: World) -> None:
    """Nothing is cut off: the connection is closed when the client has taken all."""
    world.answer = lambda session, _line: session.answer("y" * (1 << 20))
    client = world.client()
    client.send(b"x\n")
    settle(world.loop)
    left = MAX_LINE + 65536 + 1
    while left > 0:
        try:
            left -= client.send(b"z" * min(left, 65536))
        except BlockingIOError:
            settle(world.loop, 1)
    settle(world.loop)
    client.send(b"more")  # nobody listens any more
    answers = world.hear(client, 2)
    assert len(answers[0]["result"]) == 1 << 20
    assert answers[1]["ok"] is False
    assert world.is_closed(client)
    assert not world.server._sessions
