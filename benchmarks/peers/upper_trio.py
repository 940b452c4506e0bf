"""upper on trio: `serve_tcp` and a task a connection, as its tutorial shows it."""

import sys

import trio


async def handle(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data.upper())


async def main() -> None:
    async with trio.open_nursery() as nursery:
        port = int(sys.argv[1])
        await nursery.start(
            lambda **status: trio.serve_tcp(handle, port, host="127.0.0.1", **status)
        )
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main)
