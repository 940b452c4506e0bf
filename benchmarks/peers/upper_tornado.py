"""upper on Tornado: a TCPServer with a coroutine a connection, as its documentation shows it."""

import asyncio
import sys

from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpserver import TCPServer


class Upper(TCPServer):
    async def handle_stream(self, stream: IOStream, address: object) -> None:
        try:
            while True:
                data = await stream.read_bytes(65536, partial=True)
                await stream.write(data.upper())
        except StreamClosedError:
            pass


async def main() -> None:
    Upper().listen(int(sys.argv[1]), "127.0.0.1", backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
