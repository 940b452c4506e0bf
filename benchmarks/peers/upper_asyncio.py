"""upper as asyncio's documentation would write it: a Protocol. Argument: the port."""

import asyncio
import sys


class Upper(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upper, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
