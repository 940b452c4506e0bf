"""A load balancer and two hosts on one machine: namespaces on a bridge, HAProxy, two epolld.

    client 192.0.2.1 --- lb 192.0.2.10 (HAProxy) --+-- host1 192.0.2.11 (epolld)
                                                   +-- host2 192.0.2.12 (epolld)

The addresses are those of deploy/haproxy.cfg, which is used as it is. Needs root, ip, haproxy.

    python tests/deploy/cluster.py [SECONDS]

runs the whole trial: each host is upgraded in place in turn, then each is drained, stopped and
started again, under short and long-lived clients; the exit status tells whether any was harmed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
HAPROXY_CONFIG = TOP / "deploy/haproxy.cfg"
ADDRESSES = {
    "lb": "192.0.2.10",
    "host1": "192.0.2.11",
    "host2": "192.0.2.12",
    "client": "192.0.2.1",
}
FRONT = ("192.0.2.10", 1688)
SLOWEST = "slowest of the short, ms, of all requests"
PACE = 0.005  # seconds between two short requests of a client
WITHIN = 15.0  # seconds for anything that is waited for

CONFIG = """\
master: {{runtime_directory: {folder}/run}}
workers: {{count: 2, graceful_timeout: 10s}}
services:
  - name: upper
    bind: "*:1688"
    proxy_protocol: required
    proxy_trusted: 192.0.2.10
"""


def run(*command: str) -> str:
    """Run it; returns what it prints. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Process:
    """A program in one of the namespaces, and what it prints."""

    def __init__(self, namespace: str, command: list[str]) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            # It ends with this program, however that ends.
            ["setpriv", "--pdeathsig", "TERM", "ip", "netns", "exec", namespace, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": str(TOP)},
        )  # each becomes the next, and the last the command: the pid is its own
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()

    def wait_line(self, pattern: str, count: int = 1) -> str:
        """Wait for the `count`-th line that matches."""
        deadline = time.monotonic() + WITHIN
        with self._news:
            while len(found := [each for each in self.lines if re.search(pattern, each)]) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {pattern!r}:\n" + "\n".join(self.lines[-20:])
                self._news.wait(left)
            return found[count - 1]

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(WITHIN)
        return code


class Cluster:
    """The namespaces and what runs in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tag = f"epolld{os.getpid()}"
        self._made: list[str] = []
        self.hosts: dict[str, Process] = {}
        self.haproxy: Process | None = None

    def namespace(self, name: str) -> str:
        """The namespace of one machine."""
        return f"{self._tag}-{name}"

    def build(self) -> None:
        """Make the network: each machine's interface is a port of a bridge, which is the lb's."""
        remove_stale()
        switch = self.namespace("lb")
        for name in ADDRESSES:
            run("ip", "netns", "add", self.namespace(name))
            self._made.append(self.namespace(name))
            run("ip", "-n", self.namespace(name), "link", "set", "lo", "up")
            # Thousands of short connections from one address: ports must not become scarce, or
            # every connect searches for one.
            ports = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range"
            run("ip", "netns", "exec", self.namespace(name), "sh", "-c", ports)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch, "addr", "add", f"{ADDRESSES['lb']}/24", "dev", "br0")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        for name, address in ADDRESSES.items():
            if name == "lb":
                continue
            inside = self.namespace(name)
            pair = ("type", "veth", "peer", "name", "eth0", "netns", inside)
            run("ip", "-n", switch, "link", "add", name, *pair)
            run("ip", "-n", switch, "link", "set", name, "master", "br0", "up")
            run("ip", "-n", inside, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", inside, "link", "set", "eth0", "up")

    def start(self) -> None:
        """Both hosts, then HAProxy, which has found both."""
        for name in ("host1", "host2"):
            self.start_host(name)
        self.haproxy = Process(self.namespace("lb"), ["haproxy", "-db", "-f", str(HAPROXY_CONFIG)])
        for name in ("host1", "host2"):
            self.wait_state(name, "UP")

    def start_host(self, name: str) -> None:
        """Start epolld there, and wait until it serves."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        config = folder / "epolld.yaml"
        config.write_text(CONFIG.format(folder=folder))
        command = [sys.executable, "-m", "epolld", "--config", str(config)]
        self.hosts[name] = Process(self.namespace(name), command)
        self.hosts[name].wait_line("ready: ")

    def upgrade(self, name: str) -> None:
        """USR2, and wait for the new generation."""
        host = self.hosts[name]
        host.send(signal.SIGUSR2)
        host.wait_line("upgraded from")
        host.wait_line("reload done")

    def replace(self, name: str) -> None:
        """As docs/scaling.md says: drain at the load balancer, stop, start, put in again."""
        self.tell(f"set server epolld/{name} state drain")
        # Short requests end by themselves; who stays is disconnected by the daemon's own drain.
        code = self.hosts[name].end()
        assert code == 0, f"{name} ended with {code}"
        self.start_host(name)
        self.wait_state(name, "DRAIN|UP")
        self.tell(f"set server epolld/{name} state ready")
        self.wait_state(name, "UP")

    def tell(self, command: str) -> str:
        """Say something to HAProxy's control socket."""
        program = (
            "import socket, sys; s = socket.create_connection(('127.0.0.1', 9999), 5);"
            "s.sendall(sys.argv[1].encode() + b'\\n'); print(s.makefile().read())"
        )
        inside = ("ip", "netns", "exec", self.namespace("lb"))
        return run(*inside, sys.executable, "-S", "-c", program, command)

    def wait_state(self, name: str, wanted: str) -> None:
        """Wait until HAProxy has found this out."""
        deadline = time.monotonic() + WITHIN
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):  # it is just starting
                rows = [line.split(",") for line in self.tell("show stat").splitlines()]
                states = {row[1]: row[17] for row in rows if row[0] == "epolld"}
                if re.match(wanted, states.get(name, "")):
                    return
            assert time.monotonic() < deadline, f"{name} did not become {wanted}"
            time.sleep(0.05)

    def close(self) -> None:
        """End everything and remove the network."""
        if self.haproxy is not None:
            self.haproxy.end()
        for host in self.hosts.values():
            host.end(signal.SIGINT)
        for namespace in self._made:
            subprocess.run(["ip", "netns", "del", namespace], check=False)


def remove_stale() -> None:
    """Remove the namespaces of a run that was killed before it could."""
    for line in run("ip", "netns", "list").splitlines():
        found = re.match(r"epolld(\d+)-\w+", line)
        if found and not Path(f"/proc/{found[1]}").exists():
            subprocess.run(["ip", "netns", "del", found[0]], check=False)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A running one."""
    with tempfile.TemporaryDirectory(prefix="epolld-cluster-") as folder:
        made = Cluster(Path(folder))
        try:
            made.build()
            made.start()
            yield made
        finally:
            made.close()


class Clients:
    """Short requests, one after the other in several threads, and long-lived connections.

    They run in the client's namespace as a process of their own: `python cluster.py --clients`.
    """

    def __init__(self, shorts: int, longs: int) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._stop = threading.Event()
        jobs = [self._ask_shortly] * shorts + [self._ask_on] * longs
        self._threads = [threading.Thread(target=job) for job in jobs]

    def run(self) -> collections.Counter[str]:
        """Until a line comes on standard input."""
        for thread in self._threads:
            thread.start()
        print("running", flush=True)
        sys.stdin.readline()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.counts

    def _ask_shortly(self) -> None:
        while not self._stop.wait(PACE):
            begin = time.monotonic()
            self._count("short", self._one_request)
            took = round((time.monotonic() - begin) * 1000)
            self.counts[SLOWEST] = max(self.counts[SLOWEST], took)

    def _one_request(self) -> None:
        with socket.create_connection(FRONT, 10) as sock:
            _ask(sock, b"a short request\n")
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1):
                raise ValueError("more than was asked for")

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            self._count("long", self._many_requests)

    def _many_requests(self) -> None:
        with socket.create_connection(FRONT, 10) as sock:
            while not self._stop.wait(0.05):
                _ask(sock, b"one of many\n")
                self.counts["long requests"] += 1

    def _count(self, kind: str, job: Callable[[], Any]) -> None:
        try:
            job()
            self.counts[f"{kind} well"] += 1
        except Exception as error:
            self.counts[f"{kind} {type(error).__name__}"] += 1


def _ask(sock: socket.socket, request: bytes) -> None:
    sock.sendall(request)
    answer = b""
    while len(answer) < len(request):
        part = sock.recv(1024)
        if not part:
            raise EOFError
        answer += part
    if answer != request.upper():
        raise ValueError(answer)


@contextlib.contextmanager
def clients(made: Cluster, shorts: int = 4, longs: int = 20) -> Iterator[collections.Counter[str]]:
    """Clients under way; the counter is filled once they have ended."""
    command = [sys.executable, __file__, "--clients", str(shorts), str(longs)]
    process = subprocess.Popen(
        ["ip", "netns", "exec", made.namespace("client"), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    counts: collections.Counter[str] = collections.Counter()
    try:
        assert process.stdout
        assert process.stdout.readline() == "running\n"
        yield counts
        report, _ = process.communicate("\n", WITHIN)
        counts.update({key: int(n) for key, n in (x.rsplit("=", 1) for x in report.splitlines())})
    finally:
        process.kill()
        process.wait()


def harm(counts: collections.Counter[str]) -> dict[str, int]:
    """What went wrong for clients."""
    return {key: n for key, n in counts.items() if not key.endswith(("well", "requests"))}


def trial(seconds: float) -> bool:
    """The whole of it; prints what happened. True if nobody was harmed that should not be."""
    with cluster() as made:
        with clients(made) as upgraded:
            for name in made.hosts:
                time.sleep(seconds / 4)
                made.upgrade(name)
            time.sleep(seconds / 4)
        print("upgraded in place, each in turn:", dict(upgraded))
        with clients(made, longs=0) as replaced:
            for name in list(made.hosts):
                time.sleep(seconds / 4)
                made.replace(name)
            time.sleep(seconds / 4)
        print("drained, stopped and started, each in turn:", dict(replaced))
    harmed = {
        key: n for key, n in (upgraded + replaced).items() if not key.endswith(("well", "requests"))
    }
    print("harmed:", harmed or "nobody")
    return not harmed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--clients"]:
        for key, number in Clients(int(sys.argv[2]), int(sys.argv[3])).run().items():
            print(f"{key}={number}")
    else:
        sys.exit(0 if trial(float((sys.argv[1:] or ["20"])[0])) else 1)
