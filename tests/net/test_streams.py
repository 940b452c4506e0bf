"""Coroutine handlers over our transport: the contract of asyncio.start_server, and its ends.

The parity tests run each handler twice, under asyncio.start_server on a loop of its own and as
a service of ours, and what the client sees must be the same.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import trustme
from wiring import tcp_pair

import epolld
from epolld.net.loop import EventLoop
from epolld.runtime.aio import AsyncioRuntime, AsyncioService
from epolld.runtime.streams import StreamService

LIMIT = 10.0  # seconds; only a test that fails waits for so long

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Handle = Callable[[Reader, Writer], Coroutine[Any, Any, object]]
Client = Callable[[Reader, Writer], Awaitable[Any]]


@pytest.fixture
def runtime() -> Iterator[AsyncioRuntime]:
    loop = EventLoop()
    runtime = AsyncioRuntime(loop)
    runtime.native = loop  # type: ignore[attr-defined]
    yield runtime
    runtime.close(1.0)
    runtime.loop.close()
    loop.close()
    asyncio.set_event_loop(None)
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(None)


class Ours:
    """A service of ours, and clients in the same loop."""

    def __init__(self, runtime: AsyncioRuntime, handle: Handle) -> None:
        self.runtime = runtime
        self.loop: EventLoop = runtime.native  # type: ignore[attr-defined]
        self.service = StreamService(self.loop, "test", handle, asyncio_loop=runtime.loop)

    async def connect(self) -> tuple[Reader, Writer]:
        ours, theirs = tcp_pair()
        peer = ours.getpeername()
        self.service.open(ours.detach(), peer)
        return await asyncio.open_connection(sock=theirs)

    def run(self, client: Callable[[Ours], Coroutine[Any, Any, Any]]) -> Any:
        return self.runtime.run_until_complete(asyncio.wait_for(client(self), LIMIT))


def both(runtime: AsyncioRuntime, handle: Handle, client: Client) -> tuple[Any, Any]:
    """What the client returns here and there."""

    async def with_ours(ours: Ours) -> Any:
        reader, writer = await ours.connect()
        found = await client(reader, writer)
        writer.close()
        return found

    async def with_asyncio() -> Any:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            found = await client(reader, writer)
            writer.close()
            return found

    mine = Ours(runtime, handle).run(with_ours)
    return mine, asyncio.run(asyncio.wait_for(with_asyncio(), LIMIT))


def test_lines_and_the_end(runtime: AsyncioRuntime) -> None:
    async def handle(reader: Reader, writer: Writer) -> None:
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.write(b"end")
        writer.close()
        await writer.wait_closed()

    async def client(reader: Reader, writer: Writer) -> list[bytes]:
        writer.write(b"a\nb\n")
        found = [await reader.readline(), await reader.readline()]
        writer.write_eof()
        return [*found, await reader.read()]

    mine, theirs = both(runtime, handle, client)
    assert mine == theirs == [b"A\n", b"B\n", b"end"]


def test_backpressure_both_ways(runtime: AsyncioRuntime) -> None:
    """More than all buffers hold; the handler is made to wait, and so is the client."""
    size = 4_000_000
    data = bytes(range(256)) * (size // 256)

    async def handle(reader: Reader, writer: Writer) -> None:
        got = await reader.readexactly(len(data))
        writer.write(got)
        await writer.drain()
        assert writer.transport.get_write_buffer_size() <= 65536
        writer.close()

    async def client(reader: Reader, writer: Writer) -> bool:
        writer.write(data)
        await writer.drain()
        return await reader.read() == data

    assert both(runtime, handle, client) == (True, True)


def test_a_line_over_the_limit(runtime: AsyncioRuntime) -> None:
    async def handle(reader: Reader, writer: Writer) -> None:
        try:
            await reader.readline()
        except ValueError as error:
            writer.write(str(error).encode())
        writer.close()

    async def client(reader: Reader, writer: Writer) -> bytes:
        writer.write(b"x" * 200_000)
        return await reader.read()

    async def tolerant(reader: Reader, writer: Writer) -> bytes:
        try:
            return await client(reader, writer)
        except ConnectionResetError:  # asyncio closes on unread data: the kernel resets
            return b"reset"

    mine, _theirs = both(runtime, handle, tolerant)
    assert mine == b"Separator is not found, and chunk exceed the limit"


def test_facts(runtime: AsyncioRuntime) -> None:
    async def handle(reader: Reader, writer: Writer) -> None:
        same = writer.get_extra_info("socket").getpeername() == writer.get_extra_info("peername")
        writer.write(repr((same, writer.get_extra_info("nothing", 3))).encode())
        writer.close()

    async def client(reader: Reader, writer: Writer) -> bytes:
        return await reader.read()

    assert both(runtime, handle, client) == (b"(True, 3)", b"(True, 3)")


def test_start_tls(runtime: AsyncioRuntime) -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)

    async def handle(reader: Reader, writer: Writer) -> None:
        writer.write(b"ready\n")
        await writer.start_tls(ours)
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.write(writer.get_extra_info("ssl_object").version().encode())
        writer.close()

    async def client(reader: Reader, writer: Writer) -> list[bytes]:
        found = [await reader.readline()]
        await writer.start_tls(theirs, server_hostname="localhost")
        big = b"x" * 60_000 + b"\n"
        writer.write(b"hello\n" + big)
        found.append(await reader.readline())
        found.append(await reader.readline())
        assert found.pop() == big.upper()
        return found

    mine, theirs_ = both(runtime, handle, client)
    assert mine == theirs_ == [b"ready\n", b"HELLO\n"]


def test_a_handler_that_fails_ends_its_connection_and_says_so(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(reader: Reader, writer: Writer) -> None:
        raise LookupError("no such thing")

    async def client(ours: Ours) -> bytes:
        reader, writer = await ours.connect()
        found = await reader.read()
        writer.close()
        return found

    ours = Ours(runtime, handle)
    assert ours.run(client) == b""
    assert "raised LookupError; closing the connection from 127.0.0.1:" in caplog.text
    assert ours.service.closed == {"callback_error": 1}
    assert not ours.service.is_unfinished()


def test_a_peer_that_is_gone_is_no_error(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(reader: Reader, writer: Writer) -> None:
        await reader.readline()

    async def client(ours: Ours) -> None:
        _reader, writer = await ours.connect()
        writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # RST
        writer.transport.abort()
        while ours.service.live or ours.service.is_unfinished():
            await asyncio.sleep(0)

    ours = Ours(runtime, handle)
    ours.run(client)
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
    assert ours.service.closed == {"reset": 1}


def test_who_asks_is_told_and_who_does_not_is_left_to_the_daemon(runtime: AsyncioRuntime) -> None:
    told = []

    async def handle(reader: Reader, writer: Writer) -> None:
        if await reader.readline() == b"ask\n":
            writer.write(b"asked\n")
            # A task of the handler's asks for the same connection.
            await asyncio.create_task(epolld.draining().wait())
            told.append(1)
        else:
            writer.write(b"did not\n")
            await reader.read()
        writer.close()

    async def client(ours: Ours) -> list[bool]:
        answers = []
        for word in (b"ask\n", b"no\n"):
            reader, writer = await ours.connect()
            (transport,) = ours.service.transports
            writer.write(word)
            await reader.readline()
            answers.append(transport.tell_draining())
            if answers[-1]:
                transport.close()
            await reader.read()
            writer.close()
            while ours.service.live:
                await asyncio.sleep(0)
        return answers

    assert Ours(runtime, handle).run(client) == [False, True]
    assert told == [1]


def test_outside_of_epolld_nobody_drains() -> None:
    async def ask() -> bool:
        return epolld.draining().is_set()

    assert asyncio.run(ask()) is False


def test_a_task_of_nobody_hears_of_the_worker(runtime: AsyncioRuntime) -> None:
    async def wait() -> str:
        await asyncio.wait_for(epolld.draining().wait(), LIMIT)
        return "told"

    task = runtime.loop.create_task(wait())
    runtime.loop.call_later(0.01, runtime.goodbye.say)
    assert runtime.run_until_complete(asyncio.wait_for(asyncio.shield(task), LIMIT)) == "told"


def test_a_buffer_that_is_empty_is_refused(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint: int) -> bytearray:
            return bytearray()

        def buffer_updated(self, nbytes: int) -> None:
            raise AssertionError

    async def client(ours: Ours) -> None:
        reader, writer = await ours.connect()
        (transport,) = ours.service.transports
        assert type(transport.get_protocol()) is Bad
        writer.write(b"x")
        assert await reader.read() == b""
        writer.close()

    ours = Ours(runtime, None)  # type: ignore[arg-type]
    factory: Any = Bad
    ours.service = AsyncioService(ours.loop, "test", factory)  # type: ignore[assignment]
    ours.run(client)
    assert "Bad raised RuntimeError; closing the connection" in caplog.text
