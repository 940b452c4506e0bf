"""examples/keyvalue.py on asyncio's streams, with its own parser. Argument: the port."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from keyvalue import KeyValue


class Transport:
    """What the example's class answers by."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.write = writer.write
        self.close = writer.close


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    parser = KeyValue()
    parser.transport = Transport(writer)
    try:
        while data := await reader.read(65536):
            parser.data_received(data)
            await writer.drain()
    except ConnectionResetError:
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
