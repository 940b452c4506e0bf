"""A bad network between two namespaces, in user space: packets are lost, delayed and reordered.

    python lossy_link.py PID PID LOSS DELAY JITTER

What `tc netem` does, for kernels without it: a TUN device in the network namespace of each process,
with this program between them. LOSS is a share, DELAY and JITTER are seconds; jitter reorders.
Prints a line once both devices are there. Needs root.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = b"bad0"
PACKET = 65536


def enter(pid: int) -> None:
    """Go into the network namespace of a process: the calling thread alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def open_tun(pid: int) -> int:
    """A new TUN device in the namespace of a process."""
    enter(pid)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE, IFF_TUN | IFF_NO_PI))
    return fd


def main() -> None:
    """Carry packets from one to the other for ever."""
    one, other = (open_tun(int(pid)) for pid in sys.argv[1:3])
    loss, delay, jitter = map(float, sys.argv[3:6])
    print("ready", flush=True)
    chance = random.Random(1)
    across = {one: other, other: one}
    under_way: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, to, packet = heapq.heappop(under_way)
            try:
                os.write(to, packet)
            except OSError:  # that end of the link is down
                continue
        timeout = under_way[0][0] - now if under_way else None
        for fd in select.select([one, other], [], [], timeout)[0]:
            try:
                packet = os.read(fd, PACKET)
            except OSError:
                continue
            if chance.random() >= loss:
                number += 1
                due = now + max(0.0, delay + chance.uniform(-jitter, jitter))
                heapq.heappush(under_way, (due, number, across[fd], packet))


if __name__ == "__main__":
    main()
