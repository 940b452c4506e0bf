"""Builds, starts and stops epolld and its peers, each on the core it is told.

Knows how each server is launched and when it is ready; measures nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import processes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = HERE / "bin"
PEERS = HERE / "peers"  # `upper_NAME` with a suffix that says how it is run
LESSONS = ROOT / "examples/epoll"  # servers of docs/epoll.md, the same way

# Everybody, and how the tables call them. RIVALS have a bar: they take part in every round.
EVERYONE = {
    "epolld": "epolld",
    "c": "C, epoll",
    "uvloop": "uvloop, Protocol",
    "go": "Go, net",
    "asyncio": "asyncio, Protocol",
    "uvloop_streams": "uvloop, streams",
    "asyncio_streams": "asyncio, streams",
    "gevent": "gevent",
    "twisted": "Twisted",
    "tornado": "Tornado",
    "trio": "trio",
    "socketserver": "socketserver, threads",
    "perl": "Perl, Net::Server::PreFork",
}
RIVALS = ("epolld", "c", "uvloop", "go")
ONE_EACH = ("socketserver", "perl")  # a thread or process a connection: no crowds for them
SERVER_CORE, LOAD_CORE = 0, 1
READY_WITHIN = 10.0  # seconds
STOP_WITHIN = 5.0  # seconds, then SIGKILL

CONFIG = """\
master:
  runtime_directory: {folder}
{workers}services:
  - name: upper
    protocol: {protocol}
    bind: 127.0.0.1:{port}
{options}"""
TLS = "    tls: {{certificate: {certificate}, key: {key}}}\n"
OPENSSL_HEADER = Path("/usr/include/openssl/ssl.h")  # of libssl-dev; for tls_load.c
CERTIFICATE, KEY = BIN / "tls.pem", BIN / "tls.key"
READY = {"epolld": ": ready: ", "nginx": "start worker process "}  # all others print `ready`


class BenchmarkError(Exception):
    """A benchmark cannot run; the message says why."""


@dataclass
class Server:
    """A running server. `lines` grows as it prints; `pid` is the process that was started."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    started: float  # time.monotonic() just before exec
    folder: Path = Path()  # its runtime directory
    lines: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False
    ready_after: float = 0.0  # seconds from exec to the line that says so

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> list[int]:
        """Who serves: epolld's workers, or the one process of a peer."""
        return processes.workers(self.pid) if self.name == "epolld" else [self.pid]

    def wait_line(self, pattern: str, since: int = 0, within: float = READY_WITHIN) -> int:
        """Wait until a line from number `since` on matches; returns the number after it.

        Raises BenchmarkError if the server ends or the time is over.
        """
        deadline = time.monotonic() + within
        with self.news:
            while True:
                for number in range(since, len(self.lines)):
                    if re.search(pattern, self.lines[number]):
                        return number + 1
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    tail = "\n".join(self.lines[-10:])
                    raise BenchmarkError(f"{self.name} did not print {pattern!r}:\n{tail}")
                self.news.wait(left)

    def await_connections(self, total: int, within: float = 10.0) -> list[int]:
        """Wait until those who serve hold this many together; returns how many each has.

        Raises BenchmarkError if they do not in time.
        """
        deadline = time.monotonic() + within
        while True:
            counts = list(processes.connections(self.workers(), self.port).values())
            if sum(counts) == total:
                return counts
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"{self.name} holds {sum(counts)} connections instead of {total}: {counts}"
                )
            time.sleep(0.05)

    def follow(self) -> None:
        """Collect what it prints, until it ends (runs in a thread)."""
        assert self.process.stdout
        for raw in self.process.stdout:
            with self.news:
                self.lines.append(raw.decode(errors="replace").rstrip())
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()


def build() -> None:
    """Compile the load and the peers into bin/, where older than their sources."""
    BIN.mkdir(exist_ok=True)
    for name in ("load", "steady", "greedy", "peers/upper_c"):
        source = HERE / f"{name}.c"
        _compile(source, BIN / source.stem)
    if OPENSSL_HEADER.exists() and shutil.which("openssl"):
        with contextlib.suppress(subprocess.CalledProcessError):  # said why; `tls` is left out
            _make_certificate()
            _compile(HERE / "tls_load.c", BIN / "tls_load", "-lssl", "-lcrypto")
    if shutil.which("go"):
        main = PEERS / "upper_go/main.go"
        if _older(BIN / "upper_go", main):
            environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
            environment["CGO_ENABLED"] = "0"
            command = ["go", "build", "-o", str(BIN / "upper_go"), "."]
            # Without it the peer is missing, and the others are not.
            subprocess.run(command, cwd=main.parent, env=environment, check=False)


def missing() -> dict[str, str]:
    """The servers that this machine cannot run, and why; they are left out of the tables."""
    found = {} if (BIN / "upper_go").exists() else {"go": "no Go here, or it did not compile"}
    for name in ("uvloop", "gevent", "twisted", "tornado", "trio"):
        if not installed(name):
            for each in {name, f"{name}_streams"} & set(EVERYONE):
                found[each] = f"no {name} in this Python"
    probe = ["perl", "-MNet::Server::PreFork", "-e", "1"]
    if not shutil.which("perl") or subprocess.run(probe, capture_output=True).returncode:
        found["perl"] = "no perl here, or no Net::Server"
    return found


failed: dict[str, str] = {}  # peers that failed in the measure that is made now, and why


@contextlib.contextmanager
def excused(name: str) -> Iterator[None]:
    """A peer that fails inside is left out of the measure, and told; epolld is not excused."""
    try:
        yield
    except (BenchmarkError, OSError) as error:
        if name == "epolld":
            raise
        failed[name] = str(error).splitlines()[0]


def installed(module: str) -> bool:
    """Whether this Python has it."""
    return importlib.util.find_spec(module) is not None


def nginx_stream() -> tuple[str, str] | None:
    """nginx and its stream module, if both are here."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    return (program, str(module)) if program and module.exists() else None


def raise_descriptor_limit() -> None:
    """Give the servers, which inherit it, as many descriptors as the hard limit allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started inside runs on this core (None: on all)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1) if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    name: str,
    workers: int = 1,
    core: int | None = SERVER_CORE,
    settings: str = "",
    python: str = sys.executable,
    protocol: str = "upper",
    options: str = "",
    tls: bool = False,
    under: Sequence[str] = (),
    within: float = READY_WITHIN,
) -> Iterator[Server]:
    """A server that is ready; stopped with its whole family on leaving.

    `settings` are lines for epolld's `workers:` section, `protocol` is what it serves and `options`
    are more lines of the service; the default configuration is used for all else. `python` is the
    interpreter that runs epolld. `under` is a command that runs the server, such as valgrind. A
    peer is named as its file in `peers/` is, with or without `upper_`; with `tls`
    without `echo_tls_`.
    """
    with tempfile.TemporaryDirectory(prefix="epolld-bench-") as folder:
        port = _free_port()
        command = [
            *under,
            *_command(name, port, workers, Path(folder), settings, python, protocol, options, tls),
        ]
        environment = {**os.environ, "GOMAXPROCS": "1", "PYTHONPATH": str(ROOT)}
        with pinned(core):
            server = Server(
                name=name,
                port=port,
                started=time.monotonic(),
                folder=Path(folder),
                process=subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=ROOT,
                ),
            )
        follower = threading.Thread(target=server.follow, daemon=True)
        follower.start()
        try:
            server.wait_line(READY.get(name, "ready"), within=within)
            server.ready_after = time.monotonic() - server.started
            yield server
        finally:
            _stop(server)
            follower.join(STOP_WITHIN)


def _command(
    name: str,
    port: int,
    workers: int,
    folder: Path,
    settings: str,
    python: str,
    protocol: str,
    options: str,
    tls: bool,
) -> list[str]:
    """How each server is launched."""
    if name == "epolld":
        section = f"workers:\n{settings}" if settings else ""
        if tls:
            options += TLS.format(certificate=CERTIFICATE, key=KEY)
        text = CONFIG.format(
            folder=folder, workers=section, port=port, protocol=protocol, options=options
        )
        (folder / "epolld.yaml").write_text(text)
        config = str(folder / "epolld.yaml")
        return [python, "-m", "epolld", "--config", config, "--workers", str(workers)]
    if tls:
        script = PEERS / f"echo_tls_{name}.py"
        return [sys.executable, str(script), str(port), str(CERTIFICATE), str(KEY)]
    if name == "nginx":
        found = nginx_stream()
        assert found, "asked for nginx where it is not"
        text = (PEERS / "greeting_nginx.conf").read_text()
        for word, value in (("MODULE", found[1]), ("FOLDER", str(folder)), ("PORT", str(port))):
            text = text.replace(word, value)
        (folder / "nginx.conf").write_text(text)
        return [found[0], "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    for program in (LESSONS / f"upper_{name}.py", PEERS / f"upper_{name}.py", PEERS / f"{name}.py"):
        if program.exists():
            return [sys.executable, str(program), str(port)]
    if (program := PEERS / f"upper_{name}.pl").exists():
        return ["perl", str(program), str(port)]
    return [str(BIN / f"upper_{name}"), str(port)]


def _stop(server: Server) -> None:
    """End the server and every process below it, first kindly."""
    # Held by pidfds: a number that is another's meanwhile is not hit.
    family = [_pidfd(pid) for pid in processes.family(server.pid)[1:]]
    server.process.send_signal(signal.SIGINT if server.name == "epolld" else signal.SIGTERM)
    try:
        server.process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    for handle in family:
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _make_certificate() -> None:
    """A certificate that nobody but tls_load trusts, with the kind of key that most have."""
    if not CERTIFICATE.exists():
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650"
        files = ["-subj", "/CN=localhost", "-keyout", str(KEY), "-out", str(CERTIFICATE)]
        subprocess.run([*command.split(), *files], check=True, stderr=subprocess.DEVNULL)


def _compile(source: Path, target: Path, *libraries: str) -> None:
    """Compile one C program, if it or a header beside it is newer than the result."""
    if any(_older(target, each) for each in (source, *source.parent.glob("*.h"))):
        command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(target), str(source)]
        subprocess.run([*command, *libraries], check=True)


def _older(target: Path, source: Path) -> bool:
    return not target.exists() or target.stat().st_mtime < source.stat().st_mtime


def _free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
