"""Peer: the line server on uvloop, as streams: `readline`, `write`, `drain`."""

import asyncio
import sys

import uvloop


async def serve(reader, writer):
    """Answer each line with the line in upper case."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
