"""The real program under test: starts it, listens to its log, and at the end counts what is left.

A `Daemon` has a temporary directory of its own (configuration, runtime directory, user code).
Whoever uses it declares which warnings and errors the log shall hold (`expect`); `finish` fails
for any other, for a wrong exit status, and for a process, file or descriptor that is left.
Refuses to know what is served.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import yaml
from processes import (
    Worker,
    descriptors,
    eventually,
    in_session,
    listeners,
    status,
    wait_ended,
)
from processes import workers_among as _workers_among

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "epolld"]
TIMEOUT = 8.0  # seconds, for anything that ought to happen at once, on a busy machine
LINE = re.compile(r"\S+ \S+ (debug|info|warning|error|critical) (\S+)\[(\d+)\]: ")
LOUD = ("warning", "error", "critical")

Config = dict[str, Any]


def upper_at(bind: Any = "127.0.0.1:0", **settings: Any) -> Config:
    """A service of the configuration."""
    return {"name": "upper", "bind": bind, **settings}


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Client:
    """A connection with a time limit."""

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        if address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(address[5:].replace("@", "\0", 1))
        else:
            host, _, port = address.rpartition(":")
            self.sock = socket.create_connection((host.strip("[]"), int(port)), timeout)

    def ask(self, data: bytes, length: int | None = None) -> bytes:
        """Send, and read as many bytes back."""
        self.sock.sendall(data)
        return self.read(len(data) if length is None else length)

    def read(self, length: int) -> bytes:
        """So many bytes, fewer at the end of file."""
        data = b""
        while len(data) < length and (more := self.sock.recv(length - len(data))):
            data += more
        return data

    def line(self) -> bytes:
        """Up to a line feed, without it."""
        data = b""
        while not data.endswith(b"\n") and (more := self.sock.recv(1)):
            data += more
        return data.rstrip(b"\n")

    def rest(self) -> bytes:
        """All up to the end of file."""
        return self.read(1 << 30)

    def half_close(self) -> None:
        """Send no more."""
        self.sock.shutdown(socket.SHUT_WR)

    def is_ended(self) -> bool:
        """Whether the server has ended it, by FIN or RST, within the time limit."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


class Daemon:
    """One run of `epolld`."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory = directory
        self.runtime = directory / "run"
        self.config_file = directory / "epolld.yaml"
        self.config: Config = {}
        self.command = list(COMMAND)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("LISTEN_", "NOTIFY_"))},
            "PYTHONPATH": f"{directory}:{HERE}",
            "XDG_RUNTIME_DIR": str(directory),
        }
        self.lines: list[str] = []
        self.pid = 0  # the master's
        self.exit_code: int | None = None
        self.same_descriptors = True  # the master has as many at the end as when it was ready
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._sessions: list[int] = []
        self._clients: list[Client] = []
        self._expected: list[str] = []
        self._allowed: list[str] = []
        self._base = 0
        self.write_config(config)

    # -- start -----------------------------------------------------------------------------------

    def write_config(self, config: Config) -> None:
        """Put `config` into force at the next start or reload; defaults for what it lacks."""
        self.config = {
            **config,
            "master": {"runtime_directory": str(self.runtime), **config.get("master", {})},
            "workers": {"count": 2, **config.get("workers", {})},
            "services": config.get("services", [upper_at()]),
        }
        self.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def write_text(self, text: str) -> None:
        """The configuration as text, right or wrong."""
        self.config_file.write_text(text)

    def write_module(self, name: str, code: str) -> None:
        """User code that workers can import."""
        path = self.directory / f"{name}.py"
        path.write_text(code)
        path.chmod(0o644)

    def launch(self, *arguments: str, **popen: Any) -> None:
        """Start it, wait for nothing."""
        self._process = subprocess.Popen(
            [*self.command, "--config", str(self.config_file), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env=self.environment,
            start_new_session=True,
            **popen,
        )
        self.pid = self._process.pid
        self.adopt_session(self.pid)
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reader.start()

    def start(self, *arguments: str, **popen: Any) -> "Daemon":
        """Start it and wait until it is ready."""
        self.launch(*arguments, **popen)
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait for the line that says so."""
        self.wait_log(r"ready: ")
        master = LINE.match(self.find_log(r"ready: "))
        assert master
        self.pid = int(master[3])  # not our child's, if that is a wrapper
        eventually(self._count_base, what="the master at rest")

    def _count_base(self) -> bool:
        """Count the master's descriptors while it sleeps in epoll_wait: a moment before, it may
        have one open to tell systemd something. False if it woke up meanwhile."""
        before = status(self.pid)
        self._base = self.other_descriptors()
        after = status(self.pid)
        slept = before["State"][0] == after["State"][0] == "S"
        key = "voluntary_ctxt_switches"
        return slept and before[key] == after[key]

    def adopt_session(self, session: int) -> None:
        """Processes of this session must be gone at the end, too."""
        self._sessions.append(session)

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.decode(errors="backslashreplace").rstrip("\n"))
                self._changed.notify_all()
        stream.close()

    # -- the log ---------------------------------------------------------------------------------

    def wait_log(self, pattern: str, timeout: float = TIMEOUT, count: int = 1) -> str:
        """Wait for the `count`-th line that matches; returns it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := self._matching(pattern)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {pattern!r} ({count}) in the log within {timeout}s"
                self._changed.wait(left)
            return found[count - 1]

    def find_log(self, pattern: str) -> str:
        """The first line that matches; "" if there is none."""
        return next(iter(self._matching(pattern)), "")

    def count_log(self, pattern: str) -> int:
        """How many lines match."""
        return len(self._matching(pattern))

    def _matching(self, pattern: str) -> list[str]:
        return [line for line in self.lines if re.search(pattern, line)]

    def expect(self, *patterns: str) -> None:
        """The log shall hold such warnings, errors or raw lines: each at least once."""
        self._expected += patterns

    def allow(self, *patterns: str) -> None:
        """The log may hold such."""
        self._allowed += patterns

    # -- what it looks like ----------------------------------------------------------------------

    def address(self, service: str = "upper", nth: int = 0) -> str:
        """Where a service listened when it became ready."""
        line = self.find_log("ready: ")
        found = re.findall(rf"(\S+) \({re.escape(service)}\)", line)
        assert found, f"{service} is not in {line!r}"
        return str(found[nth])

    def client(self, address: str = "", timeout: float = TIMEOUT) -> Client:
        """A new connection."""
        client = Client(address or self.address(), timeout)
        self._clients.append(client)
        return client

    def processes(self) -> list[int]:
        """All that are left of it."""
        return [pid for session in self._sessions for pid in in_session(session)]

    def workers(self, generation: int | None = None, state: str | None = None) -> list[Worker]:
        """The workers, of any parent."""
        return [
            worker
            for worker in _workers_among(self.processes())
            if generation in (None, worker.generation) and state in (None, worker.state)
        ]

    def wait_workers(
        self, count: int, generation: int | None = None, timeout: float = TIMEOUT
    ) -> list[Worker]:
        """Wait until there are `count` that serve, and no others."""

        def look() -> list[Worker]:
            found = self.workers()
            serving = [w for w in found if not w.state and generation in (None, w.generation)]
            return found if len(serving) == count == len(found) else []

        return eventually(look, timeout, f"{count} workers of generation {generation}")

    def other_descriptors(self) -> int:
        """How many the master has beside its listeners and the two for each child."""
        # Children, not titles: a child has its two from the fork on, its title a little later.
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return len(descriptors(self.pid)) - len(listeners(self.pid)) - 2 * len(children)

    # -- what is done to it ----------------------------------------------------------------------

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal, to the master or to one of its workers."""
        os.kill(pid or self.pid, number)

    def reload(self, config: Config | None = None, ok: bool = True) -> str:
        """HUP, and wait for the outcome; returns its line."""
        if config is not None:
            self.write_config(config)
        before = self.count_log("reload (done|failed)")
        self.send(signal.SIGHUP)
        line = self.wait_log("reload (done|failed)", 15, before + 1)
        assert ("reload done" in line) is ok, line
        if ok:
            # The old workers read a moment later that they are to leave; until then they accept.
            found = re.search(r"generation (\d+)", line)
            assert found is not None, line
            number = int(found[1])
            eventually(
                lambda: all(w.state for w in self.workers() if w.generation < number),
                what="the old workers leave the accept queues",
            )
        return line

    def wait_exit(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end of the process that was started; returns its status."""
        assert self._process is not None
        self.exit_code = self._process.wait(timeout)
        return self.exit_code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Have it stop, and wait."""
        self.send(number)
        return self.wait_exit()

    def hang_up(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.close()

    # -- the end ---------------------------------------------------------------------------------

    def finish(self, exit_code: int = 0) -> None:
        """Stop it if it runs, and check that all is well and nothing is left."""
        troubles = []
        self.hang_up()
        if self._process is not None and self.exit_code is None:
            if self.same_descriptors and self._base and self._process.poll() is None:
                try:
                    eventually(lambda: self.other_descriptors() == self._base, 3)
                except AssertionError:
                    found = descriptors(self.pid)
                    troubles.append(f"the master had {self._base} other descriptors, now {found}")
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGTERM)
            code = self.wait_exit()
            if code != exit_code:
                troubles.append(f"exit status {code}, not {exit_code}")
        for pid in self.processes():
            try:
                wait_ended(pid, 2)
            except AssertionError as error:
                troubles.append(f"a process is left: {error}")
        self.kill()
        troubles += self._judge_log() + self._judge_files()
        assert not troubles, "\n".join(troubles)

    def kill(self) -> None:
        """End by force whatever is left of it."""
        self.hang_up()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(TIMEOUT)
        if self._reader is not None:
            self._reader.join(TIMEOUT)
            assert not self._reader.is_alive(), "somebody still holds standard error"

    def _judge_log(self) -> list[str]:
        known = self._expected + self._allowed
        troubles = [
            f"unexpected in the log: {line}"
            for line in self.lines
            if ((match := LINE.match(line)) is None or match[1] in LOUD)
            and not any(re.search(pattern, line) for pattern in known)
        ]
        troubles += [f"not in the log: {x}" for x in self._expected if not self._matching(x)]
        return troubles

    def _judge_files(self) -> list[str]:
        if not self.runtime.exists():
            return []
        return [f"left behind: {path}" for path in self.runtime.iterdir()]
