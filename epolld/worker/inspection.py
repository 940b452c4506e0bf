"""What a worker tells about itself when an operator asks: its connections, its stacks.

It serves meanwhile: a walk over many connections is cut into slices, one in a turn of the loop, so
that nobody waits for longer than a slice takes.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from epolld import channel as words
from epolld.channel import Channel
from epolld.net.loop import EventLoop, Watcher
from epolld.net.service import Service
from epolld.net.transport import Transport

SLICE = 50  # connections looked at in one turn: about a quarter of a millisecond
BREATH = 0.001  # seconds between two slices: a list is not worth all of a processor
MOST = 5000  # connections looked at for a part, though none is meant: the master wants a word
PART = 24576  # bytes of a part, about; half a message, so that one slice more always fits
RETRY = 0.02  # seconds until an answer is sent again that the channel had no room for
FIRST_FILE = os.path.join(os.path.dirname(__file__), "worker.py")  # where a worker's life begins
MAX_NAME = 200  # characters of a name in an answer

encode = msgspec.json.Encoder().encode


class Description(msgspec.Struct, frozen=True):
    """One connection, as `epolldctl connections` shows it. Seconds and bytes."""

    id: str  # as text: it may have more than the 53 bits of a JavaScript number
    peer: str
    service: str
    worker: int
    pid: int
    generation: int
    state: str
    age: float
    idle: float
    bytes_in: int
    bytes_out: int
    unsent: int  # accepted for writing, not yet taken by the kernel


class Walk:
    """One pass over the connections that there were when it began."""

    def __init__(
        self,
        watchers: list[Watcher],
        elsewhere: list[Transport],
        wanted: Callable[[Transport], bool],
        describe: Callable[[Transport], Description],
        kill: bool,
    ) -> None:
        self._left: Iterator[Any] = itertools.chain(elsewhere, watchers)
        # What handlers in threads have is no Transport, but has all that is asked for here.
        self._kinds: tuple[type[Transport], ...] = (Transport, *{type(each) for each in elsewhere})
        self._wanted = wanted
        self._describe = describe
        self._kill = kill
        self._items: list[bytes] = []
        self._size = 0
        self._looked = 0  # at so many since the last part
        self.over = False  # there is nothing left to look at

    def step(self) -> bool:
        """Look at a slice; True once a part is complete."""
        looked = 0
        for watcher in itertools.islice(self._left, SLICE):
            looked += 1
            if not isinstance(watcher, self._kinds):
                continue
            transport: Any = watcher
            if not transport.is_closed() and self._wanted(transport):
                item = encode(self._describe(transport))
                self._items.append(item)
                self._size += len(item) + 1
                if self._kill:
                    end(transport)
        self._looked += looked
        self.over = looked < SLICE
        return self.over or self._size >= PART or self._looked >= MOST

    def part(self) -> tuple[int, bytes]:
        """What has been found since the last part: how many, and their list in JSON."""
        items, self._items, self._size, self._looked = self._items, [], 0, 0
        return len(items), b"[%b]" % b",".join(items)


class Inspector:
    """Answers the master's questions about one worker."""

    def __init__(
        self,
        loop: EventLoop,
        channel: Channel,
        services: list[Service],
        place: tuple[int, int, int],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._services = services
        self._place = place  # slot, pid, generation
        self._walks: dict[int, Walk] = {}

    def walk(self, number: int, selection: words.Selection, kill: bool) -> None:
        """Begin a pass over the connections."""
        elsewhere = [each for service in self._services for each in service.in_threads()]
        self._walks[number] = Walk(
            self._loop.watchers(), elsewhere, self._condition(selection), self._describe, kill
        )
        self._step(number)

    def walk_on(self, number: int) -> None:
        """The next part is wanted."""
        self._step(number)

    def walk_no_more(self, number: int) -> None:
        """Nobody wants to know any more."""
        self._walks.pop(number, None)

    def tell_stacks(self, number: int) -> None:
        """Where all threads are."""
        self._answer(words.Stacks(number, words.fit_text(describe_stacks())))

    def _step(self, number: int) -> None:
        """Look at a slice; the next one comes after all others have had their turn."""
        walk = self._walks.get(number)
        if walk is None:
            return
        if not walk.step():
            self._loop.call_later(BREATH, lambda: self._step(number))
            return
        count, items = walk.part()
        if walk.over:
            del self._walks[number]
        self._answer(words.Walked(number, count, msgspec.Raw(items), walk.over))

    def _answer(self, message: words.AnyMessage) -> None:
        """Tell the master; later, if it does not listen now."""
        if not self._channel.send(message) and self._channel.fileno() >= 0:
            self._loop.call_later(RETRY, lambda: self._answer(message))

    def _describe(self, transport: Transport) -> Description:
        now = self._loop.now
        slot, pid, generation = self._place
        return Description(
            str(transport.id),
            transport.describe_peer()[:MAX_NAME],
            transport.service.name[:MAX_NAME],
            slot,
            pid,
            generation,
            transport.describe_state(),
            round(now - transport.opened, 3),
            round(now - transport.last_active, 3),
            transport.bytes_in,
            transport.bytes_out,
            transport.get_write_buffer_size(),
        )

    def _condition(self, selection: words.Selection) -> Callable[[Transport], bool]:
        """Whether a connection is meant."""
        ids = set(selection.ids)
        service, idle = selection.service, selection.idle
        from_there = peers_in(selection.peers) if selection.peers else None

        def wanted(transport: Transport) -> bool:
            return (
                (not ids or transport.id in ids)
                and (not service or transport.service.name == service)
                and (not idle or transport.silent_for(idle))
                and (from_there is None or from_there(transport.get_extra_info("peername")))
            )

        return wanted


def end(transport: Transport) -> None:
    """End a connection because an operator says so."""
    if transport.is_frozen():
        transport.abort()  # waits for what becomes of it
    else:
        transport.lose(ConnectionAbortedError("ended by an operator"), "killed")


def peers_in(networks: list[str]) -> Callable[[Any], bool]:
    """Whether a peer's address is in one of the networks. An IPv4 client of an IPv6 socket is an
    IPv4 client."""
    import ipaddress  # half a megabyte, for nobody but an operator who asks

    wanted = [ipaddress.ip_network(text, strict=False) for text in networks]

    def match(peer: Any) -> bool:
        if not isinstance(peer, tuple):
            return False  # a Unix socket's
        address = ipaddress.ip_address(peer[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in wanted)

    return match


def describe_stacks() -> str:
    """The stack of each thread, the innermost call last, as a traceback has it."""
    import threading
    import traceback

    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = traceback.extract_stack(frame)
        for number, call in enumerate(stack):
            if call.filename == FIRST_FILE:  # what is above was the master's
                stack = traceback.StackSummary.from_list(stack[number:])
                break
        parts.append(f"Thread {names.get(ident, ident)}:\n{''.join(stack.format())}")
    return "\n".join(parts)
