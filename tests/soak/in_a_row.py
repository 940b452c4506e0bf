"""A million connections in a row, to one worker, whose memory has to stay what it is.

    scripts/soak --in-a-row [--connections N] [--addresses] [--report FILE]

Each connects, asks, checks the answer and leaves before the next one comes. With --addresses each
comes from another address of 127.0.0.0/8, to a service with limits of connections and of their
rate for each client: what was known of clients that are gone must be forgotten. Runs in a network
namespace of its own where it may, so that what all these connections leave in the kernel is in
nobody's way; elsewhere clients leave with a reset, which leaves nothing.

Fails if the worker's memory grows, or its descriptors, its objects or what its containers hold.
The first tenth is for it to become warm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / room) for room in ("", "daemon"))]

import namespaces  # noqa: E402
from harness import Config, Daemon  # noqa: E402
from processes import descriptors, eventually  # noqa: E402

ROOT = HERE.parents[1]
SAMPLES = 100  # in a run
WARM = SAMPLES // 10
PATIENCE = 10.0  # seconds for an answer
LIMIT = 8  # live connections of a client, where that is limited

# The least that can be kept of a connection, the entry of a list, takes 8 bytes; so an eighth of
# that, and beside it what comes and goes once: the allocator's arenas, of 256 KiB up to Python
# 3.11, of which a new one may be needed at a time when all are full.
A_CONNECTION = 1.0  # bytes
IN_ALL = 256 << 10  # bytes

# Objects, or entries of containers, that the last look may find beyond the first one. There is no
# connection but the looking one at either, so a connection's objects would show a thousandfold.
MORE_OBJECTS = 20


@dataclass
class Sample:
    """The worker, after so many connections."""

    connections: int
    seconds: float
    rss: int  # bytes; judged
    pss: int  # shared pages in parts, which change with what else runs on the machine
    descriptors: int


def sample(pid: int, connections: int, begun: float) -> Sample:
    """As it is now."""
    memory = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, _ = line.split()
        memory[name] = int(size) << 10
    seconds = time.monotonic() - begun
    return Sample(connections, seconds, memory["Rss:"], memory["Pss:"], len(descriptors(pid)))


def slope(samples: list[Sample]) -> float:
    """Bytes a connection, by least squares."""
    xs = [each.connections for each in samples]
    ys = [each.rss for each in samples]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


class Visitor:
    """Connects, asks, checks and leaves; from 127.0.0.1, or each time from elsewhere."""

    RESET = struct.pack("ii", 1, 0)  # struct linger

    def __init__(self, to: tuple[str, int], addresses: bool, reset: bool) -> None:
        self._to = to
        self._addresses = random.Random(1) if addresses else None
        self._reset = reset

    def visit(self, number: int) -> None:
        """One connection."""
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        try:
            if self._addresses is not None:
                sock.bind((anywhere(self._addresses), 0))
            sock.connect(self._to)
            sock.sendall(b"question %d" % number)
            answer = sock.recv(100)
            assert answer == b"QUESTION %d" % number, f"{answer!r} answers question {number}"
            if self._reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, self.RESET)
        finally:
            sock.close()


def anywhere(chance: random.Random) -> str:
    """An address of 127.0.0.0/8, which is all loopback."""
    return socket.inet_ntoa(struct.pack("!I", (127 << 24) + chance.randrange(1, (1 << 24) - 1)))


def configuration(addresses: bool) -> Config:
    """One worker: what is asked, and what shows the worker."""
    upper: Config = {"name": "upper", "bind": "127.0.0.1:0", "idle_timeout": "1m"}
    if addresses:
        upper["limits"] = {"client_connections": LIMIT, "client_rate": 1000, "connections": 100}
    looking = {"name": "looking", "protocol": "looking:Looking", "bind": "127.0.0.1:0"}
    return {"workers": {"count": 1}, "services": [upper, looking]}


def place(running: Daemon, service: str) -> tuple[str, int]:
    """Where it listens."""
    host, _, port = running.address(service).rpartition(":")
    return host, int(port)


def look(running: Daemon) -> dict[str, Any]:
    """What the worker holds, by its own account."""
    with socket.create_connection(place(running, "looking")) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b"look")
        with sock.makefile("rb") as lines:
            found: dict[str, Any] = json.loads(lines.readline())
            return found


def grown(first: dict[str, Any], last: dict[str, Any], what: str) -> dict[str, int]:
    """Of what there is more now than may be."""
    before, after = first[what], last[what]
    more = {name: after[name] - before.get(name, 0) for name in after}
    return {name: count for name, count in more.items() if count > MORE_OBJECTS}


def limits_are_kept(running: Daemon) -> bool:
    """Whether a client still gets exactly what it may have: nothing is counted that is gone."""
    to = place(running, "upper")
    clients = [socket.create_connection(to, PATIENCE) for _ in range(LIMIT)]
    for sock in clients:
        sock.sendall(b"a")
    served = [sock.recv(10) for sock in clients] == [b"A"] * LIMIT
    with socket.create_connection(to, PATIENCE) as one_more:
        refused = one_more.recv(10) == b""
    for sock in clients:
        sock.close()
    return served and refused


def table(samples: list[Sample]) -> str:
    """For people."""
    lines = ["connections  seconds   RSS KiB   PSS KiB  descriptors"]
    lines += [
        f"{each.connections:>11,} {each.seconds:>8.1f} {each.rss >> 10:>9,} {each.pss >> 10:>9,} "
        f"{each.descriptors:>12}"
        for each in samples[:: SAMPLES // 10]
    ]
    return "\n".join(lines)


def make_visits(
    running: Daemon, visitor: Visitor, pid: int, total: int
) -> tuple[list[Sample], dict[str, Any], dict[str, Any]]:
    """Samples on the way, and two looks: when it is warm, and at the end."""
    samples: list[Sample] = []
    begun, number, first = time.monotonic(), 0, {}
    for step in range(SAMPLES + 1):
        while number < total * step // SAMPLES:
            visitor.visit(number)
            number += 1
        if step == WARM:
            first = look(running)
        samples.append(sample(pid, number, begun))
    last = look(running)
    with contextlib.suppress(AssertionError):  # then there are more: it will be told
        eventually(lambda: len(descriptors(pid)) <= samples[0].descriptors)
    samples[-1].descriptors = len(descriptors(pid))
    return samples, first, last


def serve(directory: Path, total: int, addresses: bool, reset: bool) -> tuple[str, list[str]]:
    """The run: what there is to tell, and what is wrong."""
    running = Daemon(directory, configuration(addresses))
    running.environment["PYTHONPATH"] += f"{os.pathsep}{HERE}"
    if addresses:
        running.expect("above the limit client_connections")
    running.start()
    (worker,) = running.wait_workers(1)
    visitor = Visitor(place(running, "upper"), addresses, reset)
    try:
        samples, first, last = make_visits(running, visitor, worker.pid, total)
        kept = not addresses or limits_are_kept(running)
        assert running.wait_workers(1) == [worker], "it was replaced"
    finally:
        running.finish()

    warm = samples[WARM:]
    grew, rate = warm[-1].rss - warm[0].rss, slope(warm)
    may = IN_ALL + A_CONNECTION * (warm[-1].connections - warm[0].connections)
    troubles = [
        f"{what}: more than before of {more}"
        for what in ("objects", "held")
        if (more := grown(first, last, what))
    ]
    if grew > may:
        troubles.append(f"memory grew by {grew} bytes, more than {may:.0f}")
    if samples[-1].descriptors > samples[0].descriptors:
        troubles.append("there are more descriptors than at the begin")
    if not kept:
        troubles.append("a client that was away does not get what it may have")
    told = (
        f"{table(samples)}\n\n"
        f"from the first tenth to the end: memory {grew / 1024:+.0f} KiB, "
        f"{rate:+.3f} bytes a connection; "
        f"blocks {last['blocks'] - first['blocks']:+}, "
        f"objects {sum(last['objects'].values()) - sum(first['objects'].values()):+}, "
        f"in containers {sum(last['held'].values()) - sum(first['held'].values()):+}; "
        f"descriptors {samples[0].descriptors} at the begin, {samples[-1].descriptors} at the end"
    )
    return told, troubles


def main() -> int:
    """Run, tell, and return the exit status."""
    parser = argparse.ArgumentParser(description="Connections in a row, and a worker's memory.")
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--addresses", action="store_true", help="each from another; with limits")
    parser.add_argument("--report", type=Path, help="a file for what is printed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside and namespaces.may_be_alone():
        command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--inside"]
        command = namespaces.alone(command)
        os.execvp(command[0], command)
    if options.inside:  # those that wait out their time would only make a look at them slow
        Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("1000")
    with tempfile.TemporaryDirectory() as directory:
        told, troubles = serve(
            Path(directory), options.connections, options.addresses, reset=not options.inside
        )
    told += "".join(f"\nWRONG: {each}" for each in troubles)
    told += f"\nverdict: {'it grew' if troubles else 'flat'}"
    print(told)
    if options.report is not None:
        options.report.write_text(told + "\n")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
