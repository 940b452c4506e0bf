"""The entrance of a service where things go wrong before the client is known or served."""

from __future__ import annotations

import errno
import os
import select
from typing import Any

import pytest
from wiring import Notes, receive, reset, settle, tcp_pair, unix_pair

from epolld.clientcounts import ClientCounts
from epolld.net import entrance
from epolld.net.counting import Counting
from epolld.net.entrance import Entrance
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.networks import ALL

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n"


class Door:
    """An entrance that wants PROXY headers, and its service."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.made: list[Notes] = []
        self.waiting = 0
        self.service = Service(loop, "test", self._make, on_change=self._count)
        self.entrance = Entrance(loop, self.service, trusted=[ALL])

    def _make(self) -> Notes:
        self.made.append(Notes())
        return self.made[-1]

    def _count(self, step: int) -> None:
        self.waiting += step

    def come(self, pair: Any = unix_pair) -> tuple[int, Any]:
        """Somebody connects: our descriptor, and the peer's socket."""
        ours, theirs = pair()
        fd = ours.detach()
        self.entrance.open(fd, ("192.0.2.9", 1) if pair is tcp_pair else "")
        return fd, theirs


@pytest.fixture
def door(loop: EventLoop) -> Door:
    return Door(loop)


def is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


def test_a_proxy_that_breaks_off(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fd, peer = door.come(tcp_pair)
    peer.send(HEADER[:10])
    settle(door.loop)
    assert door.waiting == 1
    reset(peer)
    settle(door.loop)
    assert is_closed(fd)
    assert (door.waiting, door.made) == (0, [])
    assert door.service.refused == {"proxy_header": 1}
    assert "refused 192.0.2.9:1: no PROXY header: Connection reset by peer" in caplog.text


def test_too_many_that_send_no_header(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may wait is refused at once; those who wait are not touched."""
    monkeypatch.setattr(entrance, "MAX_WAITING", 2)
    patient = [door.come() for _ in range(2)]
    fd, peer = door.come()
    assert is_closed(fd)
    assert receive(peer) == b""
    assert door.service.refused == {"proxy_header": 1}
    for _, other in patient:
        other.send(HEADER + b"hello")
    settle(door.loop)
    assert [notes.data for notes in door.made] == [b"hello"] * 2
    _, late = door.come()  # there is room again
    late.send(HEADER + b"hello")
    settle(door.loop)
    assert len(door.made) == 3


class FullLoop(EventLoop):
    """A loop whose epoll takes nobody: fs.epoll.max_user_watches."""

    def add(self, fd: int, events: int, watcher: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_epoll_is_full() -> None:
    """The one who would have to wait is refused."""
    door = Door(FullLoop())
    fd, peer = door.come()
    assert is_closed(fd)
    assert receive(peer) == b""
    assert (door.waiting, door.service.refused) == (0, {"proxy_header": 1})
    door.loop.close()


def test_who_is_not_served_is_not_counted_for_long(
    loop: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """A factory that raises: its clients are not held against their limit."""

    def broken() -> Any:
        raise RuntimeError("no protocol today")

    service = Service(loop, "test", broken)
    table = ClientCounts(1)
    counting = Counting(table, 0, lambda: 1, lambda: loop.now, "test", 0, 1, 0)
    door = Entrance(loop, service, counting=counting)
    for _ in range(3):
        ours, theirs = tcp_pair()
        door.open(ours.detach(), ("192.0.2.9", 1))
        settle(loop)
        assert receive(theirs) == b""
        theirs.close()
    assert service.refused == {"no_protocol": 3}
    table.close()


def test_a_wake_up_for_nothing_is_harmless(door: Door) -> None:
    fd, peer = door.come()
    (greeting,) = (each for each in door.loop.watchers() if isinstance(each, entrance.Greeting))
    greeting.on_ready(select.EPOLLIN)
    assert not is_closed(fd)
    peer.send(HEADER + b"hello")
    settle(door.loop)
    assert door.made[0].data == b"hello"
