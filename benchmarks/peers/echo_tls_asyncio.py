"""echo over TLS as asyncio's documentation would write it. Arguments: port, certificate, key."""

import asyncio
import ssl
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def main() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    context.num_tickets = 1  # as epolld has it, so that a handshake is the same work
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        Echo, "127.0.0.1", int(sys.argv[1]), ssl=context, backlog=1024
    )
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
