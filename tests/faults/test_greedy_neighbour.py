"""One client that sends as much as it can, in one worker with a hundred polite ones."""

import subprocess
import sys
from collections.abc import Callable

from accounts import MARKED, under_load
from harness import Daemon

UPPER = {"name": "upper", "bind": "127.0.0.1:0"}

GREEDY = """
import select, socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.setblocking(False)
data = b"me first " * 7000
total = 0
while True:
    _, writable, _ = select.select([sock], [sock], [])
    try:
        total += len(sock.recv(1 << 20))
    except BlockingIOError:
        pass
    try:
        sock.send(data)
    except BlockingIOError:
        pass
    if total >= 1 << 26:
        print(total, flush=True)
        total = 0
"""


def test_the_polite_are_served(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[MARKED, UPPER], workers={"count": 1})
    host, _, port = running.address("upper").rpartition(":")
    with under_load(running, new=0, living=100, pause=0.2) as load:
        greedy = subprocess.Popen(
            [sys.executable, "-c", GREEDY, host, port], stdout=subprocess.PIPE
        )
        try:
            assert greedy.stdout is not None
            assert greedy.stdout.readline()  # it gets its share
            load.slowest = 0.0
            load.wait_served(300)
            assert greedy.stdout.readline()
        finally:
            greedy.kill()
            greedy.communicate()
        assert load.slowest < 3  # on a busy machine; alone it is milliseconds
