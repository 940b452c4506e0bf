"""A network that loses, delays and reorders, and one that is away for a while in the midst of a
drain: TCP and the daemon bear it, no client is lost."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lossy_link
import needs
import pytest
from accounts import MARKED, Load
from harness import Config, Daemon
from processes import eventually

OURS, THEIRS = "10.77.0.1", "10.77.0.2"
BAD = ("0.03", "0.01", "0.01")  # loss; delay and jitter in seconds


class Link:
    """Two namespaces and a bad network between them."""

    def __init__(self) -> None:
        unshare = needs.tool("unshare", "util-linux")
        holders = [subprocess.Popen([unshare, "--net", "sleep", "1000"]) for _ in range(2)]
        self._processes = list(holders)
        self.server, self.client = (holder.pid for holder in holders)
        own = Path("/proc/self/ns/net").stat().st_ino
        for pid in (self.server, self.client):
            eventually(lambda pid=pid: Path(f"/proc/{pid}/ns/net").stat().st_ino != own)
        program = [sys.executable, lossy_link.__file__, str(self.server), str(self.client), *BAD]
        carrier = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        self._processes.append(carrier)
        assert carrier.stdout is not None
        assert carrier.stdout.readline() == "ready\n"
        carrier.stdout.close()
        for pid, own_address, peer in (
            (self.server, OURS, THEIRS),
            (self.client, THEIRS, OURS),
        ):
            self.ip(pid, "link", "set", "lo", "up")
            self.ip(pid, "addr", "add", own_address, "peer", peer, "dev", "bad0")
            self.ip(pid, "link", "set", "bad0", "up")

    def ip(self, pid: int, *arguments: str) -> None:
        """Run ip(8) in the namespace of a process."""
        subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *arguments], check=True)

    def close(self) -> None:
        """End all; the devices go with their namespaces."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()


class RemoteLoad(Load):
    """Clients in another namespace: each thread enters it."""

    inside = threading.local()

    def __init__(self, address: str, namespace: int) -> None:
        super().__init__(address, new=3, living=10, pause=0.02, patience=30)
        self.namespace = namespace

    def _serve(self, kind: str, number: int, once: bool) -> None:
        if not getattr(self.inside, "done", False):
            lossy_link.enter(self.namespace)
            self.inside.done = True
        super()._serve(kind, number, once)


@pytest.fixture
def link() -> Iterator[Link]:
    needs.root()
    needs.tool("ip", "iproute2")
    needs.tool("nsenter", "util-linux")
    if not Path("/dev/net/tun").exists():
        needs.lacking("/dev/net/tun")
    made = Link()
    yield made
    made.close()


@pytest.fixture
def remote(make_daemon: Callable[[Config], Daemon], link: Link) -> Iterator[tuple[Daemon, Load]]:
    """A daemon at one end of the link, under load from the other."""
    made = make_daemon({"services": [{**MARKED, "bind": f"{OURS}:1688"}]})
    made.command = ["nsenter", "-t", str(link.server), "-n", "--", *made.command]
    made.start()
    load = RemoteLoad(made.address(), link.client)
    load.start()
    yield made, load
    load.stop()
    load.judge()


def test_loss_delay_and_reordering(remote: tuple[Daemon, Load]) -> None:
    made, load = remote
    load.wait_served(100, 30)
    for _ in range(2):
        made.reload()
        load.wait_served(100, 30)


def test_the_link_is_down_in_the_midst_of_a_drain(remote: tuple[Daemon, Load], link: Link) -> None:
    made, load = remote
    made.send(1)
    link.ip(link.server, "link", "set", "bad0", "down")
    made.wait_log("reload done")
    made.wait_workers(2, generation=2)
    time.sleep(0.5)  # how long it is away
    link.ip(link.server, "link", "set", "bad0", "up")
    load.wait_served(100, 30)
