"""Applications for the tests, as a user would write them; each writes down what is called."""

import asyncio
import socketserver
from typing import Any

from epolld import Application, Protocol, Transport, WorkerContext


class Notes:
    """A file to which each worker adds lines."""

    def __init__(self, notes: str) -> None:
        self.path = notes

    def note(self, text: str) -> None:
        with open(self.path, "a") as file:
            file.write(f"{text}\n")


class Pool(Application, Notes):
    """Plain methods."""

    def __init__(self, notes: str, *, size: int = 1) -> None:
        super().__init__(notes)
        self.size = size

    def start(self, worker: WorkerContext) -> None:
        self.note(f"start {worker.slot} {worker.generation}")
        self.worker = worker
        worker.call_later(0.01, lambda: self.note("called later"))
        worker.call_later(0.02, lambda: 1 / 0)

    def draining(self) -> None:
        self.note(f"draining {self.worker.slot}")

    def stop(self) -> None:
        self.note(f"stop {self.worker.slot}")


class AsyncPool(Notes):
    """Coroutines, and no base; a task of its own in the background."""

    async def start(self, worker: WorkerContext) -> None:
        await asyncio.sleep(0.01)
        self.size = 7
        self.task = asyncio.create_task(self.work())
        self.note("start")

    async def work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.note("task ends")

    async def draining(self) -> None:
        await asyncio.sleep(0)
        self.note("draining")

    async def stop(self) -> None:
        await asyncio.sleep(0.01)
        self.note("stop")


class Broken(Notes):
    """Fails where it is told to, if it is told."""

    def __init__(self, notes: str = "", *, at: str) -> None:
        super().__init__(notes)
        self.at = at

    def fail(self, at: str) -> None:
        if self.at == at:
            raise ValueError(f"told to at {at}")

    def start(self, worker: WorkerContext) -> None:
        self.fail("start")

    def draining(self) -> None:
        self.fail("draining")

    def stop(self) -> None:
        self.fail("stop")


class Slow(Notes):
    """Never comes to its end."""

    async def stop(self) -> None:
        await asyncio.Event().wait()


class Facts(Protocol):
    """Says all it knows; logs what it hears."""

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        application: Any = transport.get_extra_info("application")
        facts = (
            getattr(application, "size", None),
            transport.get_extra_info("worker"),
            transport.get_extra_info("service"),
            transport.get_extra_info("connection_id") == transport.id,
            transport.get_extra_info("peercred"),
            transport.get_extra_info("nothing", "default"),
        )
        transport.write(f"{facts}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.logger.warning("heard %d bytes, 100%%", len(data))
        self.transport.logger.warning("100%")


class Blocking(socketserver.StreamRequestHandler):
    """The same, for a blocking handler."""

    def handle(self) -> None:
        self.wfile.write(f"{self.server.application.size}\n".encode())  # type: ignore[attr-defined]


async def coroutine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """And for a coroutine."""
    application = writer.get_extra_info("application")
    writer.write(f"{application.size}\n".encode())
    writer.close()
