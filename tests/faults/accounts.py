"""The accounts of a fault: what clients met under load, and whether all is as it was before.

`under_load` runs clients against a daemon while a test does its worst: each answer is checked and
each end has a name. In the end the clients' tally must hold nothing but what the test has allowed,
and processes, descriptors, connections, files and shared memory are what they were. The log is
judged by the daemon's fixture. Refuses to know which fault it is.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_NETLINK, IPPROTO_TCP, SOCK_RAW
from typing import Any

from harness import Client, Daemon
from processes import descriptors, eventually

PATIENCE = 8.0  # seconds that a client waits for an answer
MARKED = {"name": "marked", "protocol": "served:Marked", "bind": "127.0.0.1:0"}
OK, REFUSED, RESET, EARLY_END, TIMEOUT, WRONG = WORDS = (
    "ok",
    "refused",
    "reset",
    "early_end",
    "timeout",
    "wrong",
)

# <linux/netlink.h>, <linux/inet_diag.h>
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_DONE = 3
DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
HEADER = struct.Struct("=IHHII")
DIAG = struct.Struct("!BBBB4sH46s")  # inet_diag_req_v2, of whose addresses only the port counts
# ESTABLISHED, SYN_RECV, FIN_WAIT 1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING: neither LISTEN nor gone.
HELD_STATES = sum(1 << state for state in (1, 3, 4, 5, 8, 9, 11)).to_bytes(4, sys.byteorder)


@dataclass(frozen=True)
class Trouble:
    """A client that was not served to its satisfaction."""

    word: str
    kind: str  # "new" or "living"
    pid: int  # who had answered it last; 0: nobody yet
    text: str
    when: float  # of the monotonic clock


class Load:
    """Clients of `served:Marked`: some stay, some come anew for each question.

    `tally` counts by word, `troubles` are what did not go well, `by_pid` who answered how often,
    `slowest` is the longest that an answer took, in seconds.
    """

    def __init__(
        self,
        address: str,
        new: int = 2,
        living: int = 4,
        pause: float = 0.004,
        patience: float = PATIENCE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self.pause = pause
        self.patience = patience
        self.tls = tls
        self.tally: Counter[str] = Counter()
        self.troubles: list[Trouble] = []
        self.by_pid: Counter[int] = Counter()
        self.slowest = 0.0
        self._allowed: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._come_anew) for _ in range(new)]
        self._threads += [threading.Thread(target=self._stay) for _ in range(living)]
        self._begun = threading.Semaphore(0)

    def start(self, everybody: bool = True) -> None:
        """Start all clients, and wait until each was served once."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads if everybody else ():
            assert self._begun.acquire(timeout=self.patience), f"not served: {self.troubles}"

    def stop(self) -> None:
        """Let each finish the question that it has under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(self.patience + 5)

    def may(self, **words: int) -> None:
        """So many troubles of these words are all right, at most."""
        for word, count in words.items():
            assert word in WORDS, word
            self._allowed[word] = self._allowed.get(word, 0) + count

    def served(self) -> int:
        """How many questions were answered rightly so far."""
        return self.tally[OK]

    def wait_served(self, count: int, timeout: float = 8.0) -> None:
        """Until so many more were answered rightly."""
        wanted = self.served() + count
        eventually(lambda: self.served() >= wanted, timeout, f"{count} more answers")

    def judge(self) -> None:
        """Nothing but what is allowed."""
        found = Counter(trouble.word for trouble in self.troubles)
        above = {word for word in found if found[word] > self._allowed.get(word, 0)}
        assert not above, (
            f"{dict(self.tally)}, allowed {self._allowed}: "
            f"{[trouble for trouble in self.troubles if trouble.word in above][:8]}"
        )
        assert self.served(), "nobody was served"

    # -- the clients, each in a thread -----------------------------------------------------------

    def _come_anew(self) -> None:
        """Connect, ask once, check, leave; again and again."""
        number = 0
        while not self._stopping.wait(self.pause):
            number += 1
            self._serve("new", number, once=True)

    def _stay(self) -> None:
        """Ask for as long as the connection lasts; if it ends, come back."""
        number = 0
        while not self._stopping.wait(self.pause):
            number += 1000
            self._serve("living", number, once=False)

    def _serve(self, kind: str, number: int, once: bool) -> None:
        pid = 0
        try:
            with self._connect() as sock:
                while True:
                    begin = time.monotonic()
                    pid = self._ask(sock, number)
                    with self._lock:
                        self.tally[OK] += 1
                        self.by_pid[pid] += 1
                        self.slowest = max(self.slowest, time.monotonic() - begin)
                    if number in (1, 1000):
                        self._begun.release()
                    number += 1
                    if once or self._stopping.wait(self.pause):
                        return
        except (OSError, EOFError, ValueError) as error:
            word = word_for(error)
            with self._lock:
                self.tally[word] += 1
                self.troubles.append(Trouble(word, kind, pid, repr(error), time.monotonic()))

    def _connect(self) -> socket.socket:
        sock = Client(self.address, self.patience).sock
        if self.tls is None:
            return sock
        try:
            return self.tls.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise

    def _ask(self, sock: socket.socket, number: int) -> int:
        """Ask question `number`, and check the answer; returns who gave it."""
        sock.sendall(b"question %d\n" % number)
        answer = b""
        while not answer.endswith(b"\n"):
            if not (more := sock.recv(200)):
                raise EOFError(f"the end in place of answer {number}; so far {answer!r}")
            answer += more
        match = re.fullmatch(rb"(\d+) QUESTION (\d+)\n", answer)
        if match is None or int(match[2]) != number:
            raise ValueError(f"{answer!r} answers question {number}")
        return int(match[1])


def word_for(error: Exception) -> str:
    """What a client calls it."""
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return WRONG
    if isinstance(error, (EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return EARLY_END
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return REFUSED
    if isinstance(error, TimeoutError):
        return TIMEOUT
    return RESET


# -- what must be as before ------------------------------------------------------------------------


@dataclass
class State:
    """A daemon at rest, without clients."""

    processes: list[str]  # their titles without generation and pid
    descriptors: dict[str, Counter[str]]  # of each process: what kinds, how many
    connections: int  # that the kernel holds for its ports
    files: list[str]
    shared_memory: list[str]

    @classmethod
    def of(cls, running: Daemon) -> State:
        """As it is now."""
        workers = running.workers()
        holders = {f"worker {w.slot} {w.state}".strip(): w.pid for w in workers}
        return cls(
            sorted(f"worker {w.slot} {w.state}" for w in workers)
            + ["other"] * (len(running.processes()) - len(workers)),
            {name: kinds(pid) for name, pid in {"master": running.pid, **holders}.items()},
            connections(running),
            sorted(str(path.name) for path in running.runtime.iterdir()),
            sorted(shared_memory(running.pid)),
        )

    def differences(self, other: State) -> list[str]:
        """What is not the same in `other`."""
        return [
            f"{field.name}: {getattr(self, field.name)} before, {getattr(other, field.name)} now"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]

    def must_return(self, running: Daemon, timeout: float = 6.0) -> None:
        """All is as it was, or will be so within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                found = self.differences(State.of(running))
            except (FileNotFoundError, ProcessLookupError) as error:  # somebody ended meanwhile
                found = [repr(error)]
            if not found:
                return
            assert time.monotonic() < deadline, "\n".join(found)
            time.sleep(0.02)


def kinds(pid: int) -> Counter[str]:
    """A process' descriptors, without their numbers, and without those of standard error: the log
    opens it once more with its first line."""
    found = descriptors(pid)
    log = found.get(2)
    names = (
        re.sub(r"\S*/\.?epolld\.pid\b.*", "pid file", what)
        for what in found.values()
        if what != log
    )
    return Counter(re.sub(r"\d+", "N", name) for name in names)


def connections(running: Daemon) -> int:
    """How many the kernel holds for the TCP ports of a daemon: served, queued, or half closed."""
    ports = {int(found[1]) for found in re.finditer(r":(\d+) \(", running.find_log("ready: "))}
    return sum(held(port, family) for port in ports for family in (AF_INET, AF_INET6))


def held(port: int, family: int) -> int:
    """Sockets with this local port that are neither listening nor gone.

    By inet_diag (see sock_diag(7)), for /proc/net/tcp takes half a second where there are 100,000.
    """
    request = DIAG.pack(family, IPPROTO_TCP, 0, 0, HELD_STATES, port, bytes(46))
    header = HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, DUMP, 1, 0)
    count = 0
    with socket.socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.send(header + request)
        while True:
            data = sock.recv(1 << 16)
            while data:
                length, kind, _, _, _ = HEADER.unpack_from(data)
                if kind != SOCK_DIAG_BY_FAMILY:  # NLMSG_DONE, or an error
                    assert kind == NLMSG_DONE, data
                    return count
                count += 1
                data = data[(length + 3) & ~3 :]


def shared_memory(pid: int) -> Iterator[str]:
    """What a process shares by name or without one."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        _, mode, _, _, _, *path = line.split(maxsplit=5)
        if mode.endswith("s") and not (path and path[0].startswith("/usr/")):
            yield path[0] if path else ""
    for name in os.listdir("/dev/shm"):
        if "epolld" in name:
            yield name


@contextmanager
def as_before(running: Daemon, timeout: float = 6.0) -> Iterator[State]:
    """In the end all is as it was at the begin."""
    before = at_rest(running)
    yield before
    running.hang_up()
    before.must_return(running, timeout)


def at_rest(running: Daemon) -> State:
    """The state once it stays the same for a moment: nobody is still starting."""
    found = State.of(running)

    def look() -> bool:
        nonlocal found
        time.sleep(0.02)
        last, found = found, State.of(running)
        return last == found and not found.connections

    eventually(look, what="a daemon at rest")
    return found


@contextmanager
def under_load(
    running: Daemon, service: str = "marked", timeout: float = 6.0, **shape: Any
) -> Iterator[Load]:
    """Clients are served while the body runs; then the accounts are drawn up."""
    with as_before(running, timeout):
        load = Load(running.address(service), **shape)
        try:
            load.start()
            yield load
        finally:
            load.stop()
        load.judge()
