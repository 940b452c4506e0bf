"""The real daemon for a test: started, listened to, and at the end searched for what is left.

A `Daemon` has a directory of its own: configuration, runtime directory, user code. Whoever uses
it declares which warnings and errors the log shall hold (`expect`); `finish` fails for any other,
for a wrong exit status, and for a process, file or descriptor that is left. Refuses to know what
is served.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import site
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from epolld.testing.client import TIMEOUT, Client
from epolld.testing.loglines import LINE, LogLines
from epolld.testing.processes import (
    Worker,
    descriptors,
    eventually,
    in_session,
    listening,
    status,
    wait_ended,
    workers_among,
)

HERE_AND_FREE = "127.0.0.1:0"
COMMAND = [sys.executable, "-m", "epolld"]
RELOAD_TIMEOUT = 15.0  # seconds

Config = dict[str, Any]


def with_address(service: Any) -> Any:
    """A service of the configuration, with a free port if it says no address."""
    if isinstance(service, Mapping) and "bind" not in service:
        return {**service, "bind": HERE_AND_FREE}
    return service


def import_path() -> list[str]:
    """Where the running program finds modules that a fresh interpreter would not find by itself."""
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own += site.getsitepackages()
    return [
        os.path.abspath(path)
        for path in sys.path
        if not path.endswith(".zip") and not any(f"{path}/".startswith(f"{x}/") for x in own)
    ]


class Daemon(LogLines):
    """One run of `epolld` in `directory`; `config` is a mapping, or YAML text.

    What the configuration lacks: a runtime directory in `directory`, two workers, for each service
    a free port of 127.0.0.1, and, without any service, `upper`. User code is found where the test
    finds it, and in `directory`.
    """

    def __init__(self, directory: Path, config: Config | str) -> None:
        super().__init__()
        self.directory = directory
        self.runtime = directory / "run"
        self.config_file = directory / "epolld.yaml"
        self.config: Config = {}
        self.command = list(COMMAND)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("LISTEN_", "NOTIFY_"))},
            "PYTHONPATH": os.pathsep.join([str(directory), *import_path()]),
            "XDG_RUNTIME_DIR": str(directory),
        }
        self.pid = 0  # the master's
        self.exit_code: int | None = None
        self.same_descriptors = True  # the master has as many at the end as when it was ready
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: list[int] = []
        self._clients: list[Client] = []
        self._base = 0
        self.write_config(config)

    # -- start -----------------------------------------------------------------------------------

    def write_config(self, config: Config | str) -> None:
        """Put `config` into force at the next start or reload; defaults for what it lacks."""
        if isinstance(config, str):
            config = yaml.safe_load(config)
            assert isinstance(config, dict), "the configuration is no mapping"
        services = config.get("services", [{"name": "upper"}])
        self.config = {
            **config,
            "master": {"runtime_directory": str(self.runtime), **config.get("master", {})},
            "workers": {"count": 2, **config.get("workers", {})},
            "services": [with_address(service) for service in services],
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
        self.read_log(self._process.stderr)

    def start(self, *arguments: str, **popen: Any) -> Daemon:
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
        inodes = listening(self.pid)
        before = status(self.pid)
        self._base = self._count_others(inodes)
        after = status(self.pid)
        slept = before["State"][0] == after["State"][0] == "S"
        key = "voluntary_ctxt_switches"
        return slept and before[key] == after[key]

    def adopt_session(self, session: int) -> None:
        """Processes of this session must be gone at the end, too."""
        self._sessions.append(session)

    # -- what it looks like ----------------------------------------------------------------------

    def address(self, service: str = "", nth: int = 0) -> str:
        """Where a service listened when it became ready; that of the first one without a name."""
        service = service or self.config["services"][0]["name"]
        line = self.find_log("ready: ")
        found = re.findall(rf"(\S+) \({re.escape(service)}\)", line)
        assert found, f"{service} is not in {line!r}"
        return str(found[nth])

    def client(self, address: str = "", timeout: float = TIMEOUT) -> Client:
        """A new connection, to the first service without an address; closed at the end."""
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
            for worker in workers_among(self.processes())
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
        return self._count_others(listening(self.pid))

    def _count_others(self, inodes: set[str]) -> int:
        # Children, not titles: a child has its two from the fork on, its title a little later.
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        others = [what for what in descriptors(self.pid).values() if what not in inodes]
        return len(others) - 2 * len(children)

    # -- what is done to it ----------------------------------------------------------------------

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal, to the master or to one of its workers."""
        os.kill(pid or self.pid, number)

    def reload(self, config: Config | str | None = None, ok: bool = True) -> str:
        """HUP, and wait for the outcome; returns its line."""
        if config is not None:
            self.write_config(config)
        before = self.count_log("reload (done|failed)")
        self.send(signal.SIGHUP)
        line = self.wait_log("reload (done|failed)", RELOAD_TIMEOUT, before + 1)
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
        troubles += self.judge_log() + self._judge_files()
        assert not troubles, "\n".join(troubles)

    def kill(self) -> None:
        """End by force whatever is left of it."""
        self.hang_up()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(TIMEOUT)
        self.close_log()

    def _judge_files(self) -> list[str]:
        if not self.runtime.exists():
            return []
        return [f"left behind: {path}" for path in self.runtime.iterdir()]
