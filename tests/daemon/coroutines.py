"""Handlers for the tests that run on asyncio, as a user would write them."""

import asyncio
import os
import signal
import sys

import epolld

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def upper(reader: Reader, writer: Writer, *, greeting: str = "", times: int = 1) -> None:
    """Answers each line in upper case."""
    writer.write(greeting.encode())
    async for line in reader:
        writer.write(line.upper() * times)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def facts(reader: Reader, writer: Writer) -> None:
    """Says what it knows about the connection."""
    names = ("peername", "sockname", "service")
    words = [repr(writer.get_extra_info(name)) for name in names]
    words.append(str(writer.get_extra_info("socket").fileno() >= 0))
    writer.write(" ".join(words).encode() + b"\n")
    writer.close()


async def trouble(reader: Reader, writer: Writer) -> None:
    """Does what it is told, and it is told bad things."""
    writer.write(b"%d\n" % os.getpid())
    order = (await reader.readline()).decode().strip()
    if order == "raise":
        raise ValueError("told to")
    if order == "exit":
        sys.exit(1)
    if order == "reset":
        await reader.readline()
    if order == "spin":
        while True:
            pass
    writer.write(b"no trouble\n")
    writer.close()


async def waits(reader: Reader, writer: Writer) -> None:
    """Works for as long as it is let, and tells what it is told about its end."""
    draining = epolld.draining()
    writer.write(b"%d\n" % os.getpid())
    try:
        await draining.wait()
        writer.write(b"draining\n")
        if (await reader.readline()) == b"go on\n":
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        writer.write(b"cancelled\n")
        await writer.drain()
        await asyncio.sleep(0)
        raise
    finally:
        writer.write(b"end\n")
    writer.close()


async def stubborn(reader: Reader, writer: Writer) -> None:
    """Will not hear of its end."""
    writer.write(b"%d\n" % os.getpid())
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            writer.write(b"no\n")


async def outlives(reader: Reader, writer: Writer) -> None:
    """Has work left when the connection has ended."""
    writer.write(b"%d\n" % os.getpid())
    path = (await reader.readline()).decode().strip()
    writer.close()
    await epolld.draining().wait()
    await asyncio.sleep(0.2)
    with open(path, "w") as file:
        file.write("done")


async def everything(reader: Reader, writer: Writer) -> None:
    """Uses what else asyncio has."""
    loop = asyncio.get_running_loop()
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    thread = await loop.run_in_executor(None, lambda: b"thread\n")
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGPWR, came.set)
    os.kill(os.getpid(), signal.SIGPWR)
    async with asyncio.timeout(5):
        await came.wait()
    try:
        loop.add_signal_handler(signal.SIGTERM, came.set)
    except RuntimeError as error:
        refused = str(error).encode()
    server = await asyncio.start_server(lambda _reader, theirs: theirs.close(), "127.0.0.1", 0)
    ours, back = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await ours.read() == b""
    back.close()
    server.close()
    writer.write(out + thread + refused + b"\n")
    writer.close()


class Shout(asyncio.Protocol):
    """An asyncio protocol that wants a running loop everywhere."""

    def __init__(self, *, mark: str = "!") -> None:
        self.loop = asyncio.get_running_loop()
        self.mark = mark.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.task = self.loop.create_task(self.answer(data))

    async def answer(self, data: bytes) -> None:
        await asyncio.sleep(0.001)
        self.transport.write(data.upper() + self.mark)  # type: ignore[attr-defined]


def make_shout() -> Shout:
    """A factory, which does not show what it makes."""
    return Shout(mark="?")


class Buffered(asyncio.BufferedProtocol):
    """Receives into a buffer of its own."""

    def __init__(self) -> None:
        self.buffer = bytearray(7)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]).upper())  # type: ignore[attr-defined]
