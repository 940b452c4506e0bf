"""Messages without an end, or announced as 4 GB: their connections end, no memory is lost, and who
talks on is not listened to for long."""

import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from accounts import MARKED, under_load
from harness import Client, Daemon
from processes import cpu_seconds
from test_time_and_memory import memory

SERVICES = [
    MARKED,
    {"name": "lines", "protocol": "framings:Lines", "bind": "127.0.0.1:0"},
    {"name": "prefixed", "protocol": "framings:Prefixed", "bind": "127.0.0.1:0"},
    {"name": "netstrings", "protocol": "framings:Netstrings", "bind": "127.0.0.1:0"},
]
MOST = 1 << 28  # bytes that it would have to take if it took them
MIB = 1 << 20
FLOODS = [
    ("lines", b"", b"x" * 65536),
    ("prefixed", struct.pack(">I", 0xFFFFFFFF), b"x" * 65536),
    ("netstrings", b"4294967295:", b"x" * 65536),
    ("netstrings", b"", b"9" * 65536),  # even its length has no end
]


def flood(client: Client, start: bytes, more: bytes) -> int:
    """Send until it is cut off; returns how much that was."""
    sent = 0
    try:
        client.send(start)
        while sent < MOST:
            sent += client.sock.send(more)
    except ConnectionError:
        pass
    return sent


def test_they_are_cut_off(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=SERVICES, workers={"count": 1})
    with under_load(running) as load, ThreadPoolExecutor(len(FLOODS) * 4) as pool:
        (worker,) = running.wait_workers(1)
        before, used, begin = memory(worker.pid), cpu_seconds(worker.pid), time.monotonic()
        sent = [
            pool.submit(flood, running.client(running.address(service)), start, more)
            for service, start, more in FLOODS * 4
        ]
        assert max(each.result() for each in sent) < 16 * MIB  # most of it in the kernel's buffers
        load.wait_served(20)
        assert memory(worker.pid) - before < 4 * MIB
        assert cpu_seconds(worker.pid) - used < 0.6 * (time.monotonic() - begin)
    for told in ("a line longer than max_length", "a message of 4294967295 bytes", "no netstring"):
        assert running.find_log(told)
