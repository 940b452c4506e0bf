"""A TCP proxy in front of a backend, as coroutines."""

import asyncio
import logging

log = logging.getLogger("proxy")

CHUNK = 65536  # bytes


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes, no faster than it is taken, and at last the end."""
    while data := await source.read(CHUNK):
        target.write(data)
        await target.drain()
    target.write_eof()


async def proxy(
    client: asyncio.StreamReader,
    to_client: asyncio.StreamWriter,
    *,
    host: str,
    port: int,
    connect_timeout: float = 5.0,
) -> None:
    """One client: connect it to the backend, until both have said all."""
    try:
        async with asyncio.timeout(connect_timeout):
            backend, to_backend = await asyncio.open_connection(host, port)
    except OSError as error:  # TimeoutError is one, too
        log.warning("no connection to the backend %s:%d: %s", host, port, error or "time-out")
        to_client.transport.abort()
        return
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(copy(client, to_backend))
            both.create_task(copy(backend, to_client))
    except* OSError:  # one of them broke off, and the group has cancelled the other direction
        to_client.transport.abort()
        to_backend.transport.abort()
    finally:
        to_backend.close()
        to_client.close()
