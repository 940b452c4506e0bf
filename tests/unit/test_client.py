"""The command `epolld-client`, as a program: in a pipe, and on a terminal of the test's own."""

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import needs
import pytest

from epolld import __version__
from epolld.client import Escaper

COMMAND = [sys.executable, "-m", "epolld.client"]
PATIENCE = 20.0  # seconds after which a wait has failed
PROMPT = "please input: "

Talk = Callable[[socket.socket], object]


def upper(sock: socket.socket) -> None:
    """Answer as the service of that name does: what has come, until the client's end."""
    while data := sock.recv(65536):
        sock.sendall(data.upper())


class Server:
    """A listener whose thread talks to one connection after the other."""

    def __init__(self, listener: socket.socket, talk: Talk) -> None:
        self.listener = listener
        self.talk = talk
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:  # shut down by close()
                return
            sock.settimeout(PATIENCE)
            with sock, contextlib.suppress(ConnectionError):
                self.talk(sock)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.listener.close()

    @property
    def address(self) -> str:
        name = self.listener.getsockname()
        if isinstance(name, tuple):
            return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        return f"unix:{name}" if isinstance(name, str) else f"unix:@{name[1:].decode()}"


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """A function that starts a server and returns its address."""
    servers = []

    def start(talk: Talk, family: int = socket.AF_INET, name: object = None) -> str:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(name or ("127.0.0.1", 0))
        listener.listen()
        servers.append(Server(listener, talk))
        return servers[-1].address

    yield start
    for server in servers:
        server.close()


def run(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the client as a filter."""
    return subprocess.run(
        [*COMMAND, *arguments], input=data, capture_output=True, timeout=PATIENCE, check=False
    )


def refused(*arguments: str, data: bytes = b"", code: int = 69) -> str:
    """Run the client, which must fail without a traceback; return what it says."""
    ended = run(*arguments, data=data)
    text = ended.stderr.decode()
    assert ended.returncode == code, text
    assert "Traceback" not in text
    return text


# -- in a pipe ---------------------------------------------------------------------------------


def test_filter(serve: Callable[..., str]) -> None:
    ended = run(serve(upper), data=b"hello\nyou")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"HELLO\nYOU", b"")


def test_no_input_at_all(serve: Callable[..., str]) -> None:
    address = serve(upper)
    assert run(address).stdout == b""
    closed = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m epolld.client {address} <&-"],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (0, b"")


def test_megabytes_of_any_bytes(serve: Callable[..., str]) -> None:
    data = bytes(range(256)) * 16 * 1024  # more than the buffers between hold
    ended = run(serve(upper), data=data)
    assert (ended.returncode, ended.stdout == data.upper()) == (0, True)


def test_answers_longer_than_the_questions(serve: Callable[..., str], tmp_path: Path) -> None:
    def repeat(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            sock.sendall(data * 4)  # takes no more until somebody reads this

    # A Unix socket's buffers do not grow (net.core.wmem_default): full after a few chunks.
    address = serve(repeat, socket.AF_UNIX, str(tmp_path / "socket"))
    ended = run(address, data=b"x" * 2**21)
    assert (ended.returncode, len(ended.stdout)) == (0, 2**23)


def test_answer_that_comes_only_after_the_end(serve: Callable[..., str]) -> None:
    def reverse(sock: socket.socket) -> None:
        with sock.makefile("rb") as stream:
            sock.sendall(stream.read()[::-1])

    assert run(serve(reverse), data=b"abc").stdout == b"cba"


def test_answer_shown_while_the_input_is_open(serve: Callable[..., str]) -> None:
    with subprocess.Popen(
        [*COMMAND, serve(upper)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for word in (b"one", b"two"):
            client.stdin.write(word)
            client.stdin.flush()
            assert client.stdout.read(3) == word.upper()
        client.stdin.close()
        assert client.wait(PATIENCE) == 0


def test_server_that_answers_and_closes(serve: Callable[..., str]) -> None:
    ended = run(serve(lambda sock: sock.sendall(b"noon\r\n")))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"noon\r\n", b"")


@pytest.mark.parametrize("path", ["file", "abstract"])
def test_unix_socket(path: str, serve: Callable[..., str], tmp_path: Path) -> None:
    name = str(tmp_path / "socket") if path == "file" else f"\0{tmp_path}"
    address = serve(upper, socket.AF_UNIX, name)
    assert address.startswith("unix:@" if path == "abstract" else "unix:/")
    assert run(address, data=b"x").stdout == b"X"


def test_ipv6(serve: Callable[..., str]) -> None:
    try:
        address = serve(upper, socket.AF_INET6, ("::1", 0))
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("this machine has no IPv6")
    assert address.startswith("[::1]:")
    assert run(address, data=b"x").stdout == b"X"


def test_reader_that_leaves(serve: Callable[..., str]) -> None:
    def endless(sock: socket.socket) -> None:
        while True:
            sock.sendall(b"x" * 65536)

    with subprocess.Popen(
        [*COMMAND, serve(endless)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.read(10) == b"x" * 10
        client.stdout.close()
        assert client.wait(PATIENCE) == 141
        assert client.stderr.read() == b""


# -- what goes wrong ---------------------------------------------------------------------------


def test_refused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets this port
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        text = refused(address)
    assert text.startswith(f"epolld-client: {address}: connection refused")
    assert text.count("\n") == 1


def test_no_such_socket(tmp_path: Path) -> None:
    assert "no such socket" in refused(f"unix:{tmp_path}/none")


def test_socket_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "left"))
    assert "connection refused" in refused(f"unix:{tmp_path}/left")


def test_socket_of_another_kind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "datagrams"))
        assert "wrong type for socket" in refused(f"unix:{tmp_path}/datagrams")


def test_socket_of_somebody_else(tmp_path: Path) -> None:
    """Nothing but root may connect to it, and we are nobody."""
    needs.root()
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "closed"))
        os.chmod(tmp_path / "closed", 0o600)
        sock.listen()
        code = (
            "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
            "from epolld.client import main; sys.exit(main())"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, f"unix:{tmp_path}/closed"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 69, ended.stderr
    assert "permission denied: see mode, owner and group" in ended.stderr


def test_a_full_queue(tmp_path: Path) -> None:
    """Nobody accepts: the client waits for its turn, and not for ever."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        address = f"unix:{tmp_path}/busy"
        listener.bind(address[5:])
        listener.listen(0)
        other.connect(address[5:])
        assert "no connection within 100ms" in refused(address, "--timeout", "100ms")
        with subprocess.Popen([*COMMAND, address], stdin=subprocess.DEVNULL) as client:
            wait_until_asleep(client.pid)
            for _ in range(2):
                listener.accept()[0].close()
            assert client.wait(PATIENCE) == 0


def test_output_to_a_full_disk(serve: Callable[..., str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*COMMAND, serve(upper)],
            input=b"hello",
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 73
    assert b"standard input or output: No space left on device" in ended.stderr


def test_unknown_host() -> None:
    assert "cannot resolve the host name" in refused("no-such-host.invalid:1688")


def test_cut_off(serve: Callable[..., str]) -> None:
    def reset(sock: socket.socket) -> None:
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert "cut the connection off" in refused(serve(reset), data=b"hello")


def test_server_leaves_before_it_has_all(serve: Callable[..., str]) -> None:
    leave = serve(lambda sock: sock.sendall(b"bye"))
    with subprocess.Popen(
        [*COMMAND, leave],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:  # its input stays open
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.read() == b"bye"
        assert b"before it had all input" in client.stderr.read()
        assert client.wait(PATIENCE) == 69


def test_silent_server(serve: Callable[..., str]) -> None:
    gone = threading.Event()
    silent = serve(lambda sock: gone.wait(PATIENCE))
    assert "silent for 100ms" in refused(silent, "--timeout", "100ms", data=b"x")
    gone.set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense' is not an address"),
        (["1688"], "127.0.0.1:1688"),
        (["fd:3"], "HOST:PORT or unix:PATH"),
        (["--timeout", "soon"], "'soon' is not a duration"),
        (["--timeout", "0"], "more than 0"),
        (["--nonsense"], "unrecognized arguments"),
        (["a:1", "b:2"], "unrecognized arguments"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    text = refused(*arguments, code=64)
    assert said in text
    assert text.startswith("usage: epolld-client ")


def test_version_and_help() -> None:
    assert run("--version").stdout.decode() == f"epolld-client {__version__}\n"
    shown = run("--help").stdout.decode()
    assert "127.0.0.1:1688" in shown
    assert "--timeout" in shown


# -- what is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"caf\xc3\xa9\t\n"], "café\t\n"),
        ([b"\xff\xc3("], "\\xff\\xc3("),
        ([b"\xe2", b"\x82", b"\xac"], "€"),
        ([b"\xe2\x82"], "\\xe2\\x82"),
        ([b"\x1b[2J\x07\x00\x7f"], "\\x1b[2J\\x07\\x00\\x7f"),
        ([b"\xc2\x9b"], "\\u009b"),
        ([b"a\r\nb\rc\r", b"\nd\r", b"e\r"], "a\nb\\x0dc\nd\\x0de\\x0d"),
    ],
)
def test_escaper(pieces: list[bytes], shown: str) -> None:
    escaper = Escaper()
    text = "".join([escaper.escape(piece) for piece in pieces])
    assert text + escaper.escape(b"", final=True) == shown


# -- on a terminal -----------------------------------------------------------------------------


class Terminal:
    """The client on a pseudo-terminal: `type` for the keyboard, `expect` for the screen."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "XDG_STATE_HOME": str(home), "TERM": "dumb"}
        environment["PYTHONIOENCODING"] = "utf-8"
        self.client = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.screen = b""  # what was shown and not yet expected

    def type(self, text: str) -> None:
        os.write(self.master, text.encode("utf-8", "surrogateescape"))

    def expect(self, text: str) -> str:
        """Wait until `text` is shown; return what was shown before it."""
        awaited = text.replace("\n", "\r\n").encode()
        deadline = time.monotonic() + PATIENCE
        while awaited not in self.screen:
            more = self._read(deadline)
            assert more, f"{text!r} not in {self.screen!r}"
            self.screen += more
        before, _, self.screen = self.screen.partition(awaited)
        return as_text(before)

    def rest(self) -> str:
        """Wait for the client's end; return what else was shown."""
        deadline = time.monotonic() + PATIENCE
        while more := self._read(deadline):
            self.screen += more
        return as_text(self.screen)

    def _read(self, deadline: float) -> bytes:
        """What is shown next, b"" at the end."""
        left = deadline - time.monotonic()
        assert select.select([self.master], [], [], max(0, left))[0], repr(self.screen)
        try:
            return os.read(self.master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that the other side has closed
                raise
            return b""

    def close(self) -> None:
        if self.client.poll() is None:
            self.client.kill()
        self.client.wait(PATIENCE)
        os.close(self.master)


def wait_until_asleep(pid: int) -> None:
    """Wait until a process waits for something itself: state S in proc(5)."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < deadline


def as_text(screen: bytes) -> str:
    return screen.decode("utf-8", "replace").replace("\r\n", "\n")


def _take_terminal() -> None:
    """Make standard input the controlling terminal, so that Ctrl-C is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """A function that starts the client on a terminal."""
    terminals = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(tmp_path, *arguments))
        return terminals[-1]

    yield start
    for each in terminals:
        each.close()


Open = Callable[..., Terminal]


def test_conversation(serve: Callable[..., str], terminal: Open) -> None:
    talk = terminal(serve(upper))
    talk.expect(PROMPT)
    talk.type("hello\n")
    talk.expect("hello\nHELLO\n" + PROMPT)
    talk.type("\n")
    assert talk.expect(PROMPT) == "\n"
    talk.type("caf\u00e9 \udcff\n")
    assert "CAF\u00e9 \\xff\n" in talk.expect(PROMPT)
    talk.type("q\n")
    assert talk.rest() == "q\n"
    assert talk.client.wait(PATIENCE) == 0


def test_end_of_input(serve: Callable[..., str], terminal: Open) -> None:
    talk = terminal(serve(upper))
    talk.expect(PROMPT)
    talk.type("\4")
    assert talk.rest() == "\n"
    assert talk.client.wait(PATIENCE) == 0


def test_interrupt(serve: Callable[..., str], terminal: Open) -> None:
    talk = terminal(serve(upper))
    talk.expect(PROMPT)
    # CPython's readline misses a signal that comes after the prompt and before its select().
    wait_until_asleep(talk.client.pid)
    talk.type("\3")
    assert "Traceback" not in talk.rest()
    assert talk.client.wait(PATIENCE) == 128 + signal.SIGINT


def test_history(serve: Callable[..., str], terminal: Open, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    file = tmp_path / "epolld" / "history"
    file.parent.mkdir()
    file.touch(0o644)
    for typed in ("remember me\n", "\x10\x10\n"):  # Ctrl-P twice: over the `q`
        talk = terminal(serve(upper))
        talk.expect(PROMPT)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        talk.type(typed)
        talk.expect("REMEMBER ME\n" + PROMPT)
        talk.type("q\n")
        talk.rest()
        assert talk.client.wait(PATIENCE) == 0
        assert "remember me\nq\n" in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_answers_of_all_kinds(serve: Callable[..., str], terminal: Open) -> None:
    greeted, go_on = threading.Event(), threading.Event()

    def talk_to(sock: socket.socket) -> None:
        sock.sendall(b"welcome\r\n")
        greeted.set()
        for answer in (b"no newline", b"\x1b[2Jtwo\nlines\r\n"):
            sock.recv(100)
            sock.sendall(answer)
        sock.recv(100)
        sock.sendall(b"first, ")
        assert go_on.wait(PATIENCE)
        sock.sendall(b"late\n")
        upper(sock)

    talk = terminal(serve(talk_to))
    talk.expect(PROMPT)
    assert greeted.wait(PATIENCE)
    talk.type("1\n")
    # The greeting is shown before the first prompt, or before the first answer if it came late.
    assert talk.expect("no newline\n" + PROMPT) in ("1\n", "1\nwelcome\n")
    talk.type("2\n")
    assert talk.expect(PROMPT) == "2\n\\x1b[2Jtwo\nlines\n"
    talk.type("3\n")
    assert talk.expect(PROMPT) == "3\nfirst, \n"
    go_on.set()
    talk.type("4\n")
    assert re.fullmatch(r"4\nlate\n(4\n)?", talk.expect(PROMPT))


def test_no_answer(serve: Callable[..., str], terminal: Open) -> None:
    talk = terminal(serve(lambda sock: sock.makefile("rb").read()), "--timeout", "0.05")
    talk.expect(PROMPT)
    talk.type("hello\n")
    assert talk.expect(PROMPT) == "hello\nepolld-client: no answer within 50ms\n"


def test_server_goes_away(serve: Callable[..., str], terminal: Open) -> None:
    talk = terminal(serve(lambda sock: sock.recv(100)))
    talk.expect(PROMPT)
    talk.type("hello\n")
    assert talk.rest() == "hello\nepolld-client: the server closed the connection\n"
    assert talk.client.wait(PATIENCE) == 69


def test_filter_to_a_terminal(serve: Callable[..., str], tmp_path: Path) -> None:
    master, slave = pty.openpty()
    client = subprocess.Popen([*COMMAND, serve(upper)], stdin=subprocess.PIPE, stdout=slave)
    os.close(slave)
    client.communicate(b"\x1bx\xff\n", timeout=PATIENCE)
    assert os.read(master, 100) == b"\\x1bX\\xff\r\n"
    os.close(master)
    assert client.returncode == 0


def test_no_answer_to_a_line(serve: Callable[..., str], terminal: Open) -> None:
    gone = threading.Event()
    talk = terminal(serve(lambda sock: gone.wait(PATIENCE)), "--timeout", "100ms")
    talk.expect(PROMPT)
    talk.type("hello\n")
    talk.expect("epolld-client: no answer within 100ms\n" + PROMPT)  # and on it goes
    talk.type("q\n")
    talk.rest()
    assert talk.client.wait(PATIENCE) == 0
    gone.set()


def test_an_answer_without_a_line_end(serve: Callable[..., str], terminal: Open) -> None:
    def shout(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            sock.sendall(data.strip().upper())

    talk = terminal(serve(shout))
    talk.expect(PROMPT)
    talk.type("hello\n")
    talk.expect("hello\nHELLO\n" + PROMPT)  # the prompt has a line of its own
