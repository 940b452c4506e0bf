"""Accepting: one a wake, fair, without spinning when resources run out, leaving nobody behind."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from wiring import DEADLINE, Notes, settle, turn

from epolld.net import acceptor, descriptor
from epolld.net.acceptor import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    EPISODE,
    LOST_CONNECTION,
    Gate,
)
from epolld.net.loop import EventLoop
from epolld.net.service import Service


class FaultyListener(socket.socket):
    """A listening socket whose accept fails with the errors in `faults`, one each."""

    faults: list[int]
    calls: int

    def _accept(self) -> Any:
        self.calls += 1
        if self.faults:
            number = self.faults.pop(0)
            raise OSError(number, os.strerror(number))
        return super()._accept()


def listen() -> FaultyListener:
    listener = FaultyListener(socket.AF_INET, socket.SOCK_STREAM)
    listener.faults, listener.calls = [], 0
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    listener.setblocking(False)
    return listener


class Stand:
    """A gate with one listener, on a clock that is turned by hand."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.loop = EventLoop(lambda: self.time)
        self.made: list[Notes] = []
        self.service = Service(self.loop, "test", self._make)
        self.gate = Gate(self.loop)
        self.listener = listen()
        self.gate.add(self.listener, self.service)
        self.clients: list[socket.socket] = []

    def _make(self) -> Any:
        self.made.append(Notes())
        return self.made[-1]

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.listener.getsockname()))

    def close(self) -> None:
        for notes in self.made:
            if not notes.lost:
                notes.transport.abort()
        settle(self.loop)
        for client in self.clients:
            client.close()
        self.gate.close()
        self.listener.close()
        settle(self.loop)
        self.loop.close()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(acceptor, "accept", descriptor.accept)  # which a listener can make fail
    stand = Stand()
    yield stand
    stand.close()


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_one_connection_a_wake_as_they_come(stand: Stand) -> None:
    for served in (1, 2, 3):
        stand.connect()
        turn(stand.loop)
        assert stand.service.live == stand.listener.calls == served
    assert stand.made[0].transport.get_extra_info("peername") == stand.clients[0].getsockname()


@pytest.mark.parametrize(
    ("alone", "served"),
    [(False, [1, 3, 7, 11, 15, 19]), (True, [1, 3, 7, 15, 31, 47])],
    ids=["among siblings", "alone"],
)
def test_a_few_a_wake_while_more_of_them_wait(stand: Stand, alone: bool, served: list[int]) -> None:
    stand.gate.alone = alone
    stand.connect(60)
    for count in served:
        turn(stand.loop)
        assert stand.service.live == count


def test_one_a_wake_again_once_nobody_waits_and_none_in_vain(stand: Stand) -> None:
    stand.connect(6)
    for served in (1, 3, 6):  # the last wake-up might have taken four
        turn(stand.loop)
        assert stand.service.live == served
    stand.connect(2)
    turn(stand.loop)
    assert stand.service.live == stand.listener.calls == 7


def test_its_place_in_the_queue_is_left_once_a_wake(stand: Stand, monkeypatch) -> None:
    requeued = []
    monkeypatch.setattr(EventLoop, "requeue", lambda *_: requeued.append(stand.service.live))
    stand.connect(7)
    for _ in range(3):
        turn(stand.loop)
    assert requeued == [0, 1, 3]  # before the first of them is served


def test_a_lost_connection_is_one_of_several(stand: Stand) -> None:
    stand.connect(3)
    turn(stand.loop)
    stand.listener.faults = [errno.ECONNABORTED]
    turn(stand.loop)
    assert stand.service.live == 2
    turn(stand.loop)
    assert stand.service.live == 3


@pytest.mark.parametrize("leave", ["shut", "hold", "close"])
def test_who_leaves_amid_several_takes_no_more(stand: Stand, leave: str) -> None:
    stand.connect(4)
    turn(stand.loop)

    def leave_at_two(_step: int) -> None:
        if stand.service.live == 2:
            if leave == "shut":
                stand.gate.shut("full")
            elif leave == "hold":
                stand.gate.hold(stand.service, held=True)
            else:
                stand.gate.close()

    stand.service._on_change = leave_at_two
    turn(stand.loop)
    assert stand.service.live == (4 if leave == "close" else 2)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, 999])
def test_exhaustion_backs_off_without_spinning_and_comes_back(stand, caplog, number: int) -> None:
    stand.connect()
    stand.listener.faults = [number] * 3
    turn(stand.loop)
    assert not stand.gate.is_open()
    for calls, wait in [(1, BACKOFF_FIRST), (2, 2 * BACKOFF_FIRST), (3, 4 * BACKOFF_FIRST)]:
        settle(stand.loop)
        assert stand.listener.calls == calls
        stand.time += wait * 0.99
        settle(stand.loop)
        assert stand.listener.calls == calls
        stand.time += wait * 0.02
        settle(stand.loop)
    assert stand.service.live == 1
    assert stand.gate.is_open()
    (line,) = log_lines(caplog)
    assert os.strerror(number) in line


def test_the_back_off_has_a_limit_and_success_resets_it(stand: Stand) -> None:
    stand.connect()
    stand.listener.faults = [errno.EMFILE] * 20
    for _ in range(19):
        settle(stand.loop)
        stand.time += BACKOFF_LAST * 1.01
    settle(stand.loop)
    assert stand.listener.calls == 20
    stand.time += BACKOFF_LAST * 1.01
    settle(stand.loop)
    assert stand.service.live == 1
    stand.listener.faults = [errno.EMFILE]
    stand.connect()
    settle(stand.loop)
    assert stand.service.live == 1
    stand.time += BACKOFF_FIRST * 1.01
    settle(stand.loop)
    assert stand.service.live == 2


def test_one_log_line_an_episode(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    stand.connect(1)
    for lines in (1, 2):
        stand.listener.faults = [errno.EMFILE] * 5
        for _ in range(6):
            settle(stand.loop)
            stand.time += BACKOFF_LAST
        settle(stand.loop)
        assert len(log_lines(caplog)) == lines
        stand.time += EPISODE + 1
        stand.connect(1)


@pytest.mark.parametrize("number", sorted(LOST_CONNECTION), ids=errno.errorcode.get)
def test_a_connection_lost_before_it_was_accepted_is_skipped(stand, caplog, number: int) -> None:
    stand.connect()
    stand.listener.faults = [number]
    settle(stand.loop)
    assert stand.service.live == 1
    assert stand.gate.is_open()
    assert log_lines(caplog) == []


def test_a_sibling_that_was_quicker_is_no_error(stand, caplog) -> None:
    stand.connect()
    stand.listener.faults = [errno.EAGAIN]
    settle(stand.loop)
    assert stand.service.live == 1
    assert log_lines(caplog) == []


def test_leaving_accepts_everything_that_is_queued(stand: Stand) -> None:
    stand.connect(20)
    stand.listener.faults = [errno.ECONNABORTED]
    stand.gate.close()
    assert stand.service.live == 20
    assert stand.listener.fileno() == -1


def test_who_was_never_in_the_queues_takes_nobody_along(stand: Stand) -> None:
    stand.gate.shut("starting")
    stand.connect(3)
    stand.gate.close()
    assert stand.service.live == 0


def test_shut_for_several_reasons_until_all_are_taken_back(stand: Stand) -> None:
    stand.gate.shut("a")
    stand.gate.shut("b")
    stand.gate.shut("b")
    stand.connect()
    settle(stand.loop)
    assert stand.gate.clients_wait()
    stand.gate.requeue()
    stand.gate.open("a")
    stand.gate.open("never there")
    settle(stand.loop)
    assert stand.service.live == 0
    stand.gate.open("b")
    settle(stand.loop)
    assert stand.service.live == 1
    assert not stand.gate.clients_wait()


def test_a_listener_added_while_shut_waits(stand: Stand) -> None:
    stand.gate.shut("starting")
    extra = listen()
    stand.gate.add(extra, stand.service)
    with socket.create_connection(extra.getsockname()):
        settle(stand.loop)
        assert stand.service.live == 0
        stand.gate.open("starting")
        settle(stand.loop)
        assert stand.service.live == 1
        stand.made[0].transport.abort()
        settle(stand.loop)


# -- several processes -------------------------------------------------------------------------


def fork_worker(listener: socket.socket, body: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            loop = EventLoop()
            loop.call_later(DEADLINE, lambda: os._exit(3))
            body(loop)
            loop.run()
        finally:
            os._exit(1)
    return pid


class WhoServes(Notes):
    """Tells each client which process it got, and says so only when it can be asked again."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"%8d" % os.getpid())


def ask(address: Any) -> int:
    """Connect, and learn who serves; the connection is closed by our end."""
    with socket.create_connection(address, timeout=DEADLINE) as client:
        return int(client.recv(8, socket.MSG_WAITALL))


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_requeue_finds_a_stranded_client() -> None:
    """The wake-up goes to a worker that dies of it; the sibling sleeps until its tick."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        read, write = os.pipe()
        tick_read, tick_write = os.pipe()

        def sleeper(loop: EventLoop) -> None:
            gate = Gate(loop)
            gate.add(listener, Service(loop, "test", WhoServes))

            def tick(_events: int) -> None:
                os.read(tick_read, 1)
                gate.requeue()

            loop.register(tick_read, 1, tick)
            os.write(write, b"r")

        def dying(loop: EventLoop) -> None:
            gate = Gate(loop)
            service: Any = type("S", (), {"open": lambda *a: None})()
            gate.add(listener, service)
            for acceptor in gate._acceptors:  # woken, and dead before it accepts
                acceptor.on_ready = lambda events: os._exit(0)  # type: ignore[method-assign]
            os.write(write, b"r")

        first = fork_worker(listener, dying)
        os.read(read, 1)
        wait_asleep(first)
        second = fork_worker(listener, sleeper)
        os.read(read, 1)
        wait_asleep(second)
        with socket.create_connection(listener.getsockname(), timeout=0.2) as client:
            os.waitpid(first, 0)
            with pytest.raises(TimeoutError):
                client.recv(8)
            client.settimeout(DEADLINE)
            os.write(tick_write, b"t")
            assert int(client.recv(8, socket.MSG_WAITALL)) == second
        kill(second)
        for fd in (read, write, tick_read, tick_write):
            os.close(fd)


def wait_asleep(pid: int) -> None:
    """Until the process waits in epoll_wait."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "S":
                return
    raise AssertionError(f"process {pid} never slept")


def test_two_workers_take_turns() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        read, write = os.pipe()

        def worker(loop: EventLoop) -> None:
            Gate(loop).add(listener, Service(loop, "test", WhoServes))
            os.write(write, b"r")

        pids = [fork_worker(listener, worker) for _ in range(2)]
        for _ in pids:
            os.read(read, 1)
        served = []
        for _ in range(100):
            for pid in pids:
                wait_asleep(pid)
            served.append(ask(listener.getsockname()))
        kill(*pids)
        os.close(read)
        os.close(write)
    assert set(served) == set(pids)
    repeats = sum(a == b for a, b in itertools.pairwise(served))
    assert repeats <= 20, "they take turns, but for what the scheduler makes of it"


def test_one_service_is_held_out_of_the_queues_and_the_others_stand(stand: Stand) -> None:
    other = Service(stand.loop, "other", stand._make)
    listener = listen()
    stand.gate.add(listener, other)
    stand.gate.hold(stand.service, True)
    stand.connect()
    client = socket.create_connection(listener.getsockname())
    settle(stand.loop)
    assert (stand.service.live, other.live) == (0, 1)
    assert not stand.gate.clients_wait()  # who is held is no reason to come back
    stand.gate.requeue()
    stand.gate.shut("a reason")
    stand.gate.open("a reason")
    settle(stand.loop)
    assert stand.service.live == 0
    stand.gate.shut("a reason")
    stand.gate.hold(stand.service, False)
    settle(stand.loop)
    assert stand.service.live == 0
    stand.gate.open("a reason")
    settle(stand.loop)
    assert (stand.service.live, other.live) == (1, 1)
    client.close()
    listener.close()
