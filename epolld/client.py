"""The command `epolld-client`: type a line, see the answer; or pipe bytes through a server.

Works with every service on a stream socket, ours or not. It knows no protocol: how long an
answer is, nobody can tell in general, so `show_answer` states the rule by which it guesses.
"""

import codecs
import contextlib
import io
import os
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator

from epolld import __version__
from epolld.address import Address, FdAddress, UnixAddress, parse_address
from epolld.commandline import Parser
from epolld.errors import EpolldError, ExitCode, UsageError
from epolld.units import format_duration, parse_duration

DEFAULT_SERVER = "127.0.0.1:1688"
DEFAULT_TIMEOUT = 5.0  # seconds without any answer
QUIET = 0.2  # seconds of silence after which an answer without a newline counts as complete
CHUNK = 64 * 1024  # bytes a read: larger buffers cost page faults (see the design)
HISTORY_LINES = 1000
PROMPT = "please input: "

STDIN, STDOUT = 0, 1
INTERRUPTED = 128 + 2  # what a shell reports for a program ended by SIGINT
OUTPUT_CLOSED = 128 + 13  # ... and by SIGPIPE: `epolld-client ... | head`

# Control characters would let a server drive the user's terminal. Those of Latin-1 (C1) are shown
# as \u0080, so that they differ from a byte 0x80, which is no UTF-8 and is shown as \x80.
ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\t\n"}
ESCAPES |= {code: f"\\u{code:04x}" for code in range(128, 160)}


class ServerError(EpolldError):
    """The server cannot be reached, went away, or does not answer."""

    exit_code = ExitCode.CANNOT_BIND  # 69, EX_UNAVAILABLE: the client's word for it is the same


class Escaper:
    """Turns an answer that arrives in pieces into text that is safe to show on a terminal."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._held = ""  # "\r", if that came last: only what follows tells whether it ends a line

    def escape(self, data: bytes, final: bool = False) -> str:
        """Return what can be shown by now; with `final`, also what a next piece might complete."""
        text = self._held + self._decode(data, final)
        self._held = "\r" if text.endswith("\r") and not final else ""
        text = text[: len(text) - len(self._held)]
        return text.replace("\r\n", "\n").translate(ESCAPES)


def connect(address: Address, timeout: float) -> socket.socket:
    """Return a socket connected to `address`, within `timeout` seconds.

    Raises ServerError with what to look at.
    """
    try:
        if isinstance(address, UnixAddress):
            path = address.path
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # With a time limit of Python's the socket does not block, and to such a one Linux says
            # EAGAIN at once if the queue of the other side is full.
            limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            try:
                sock.connect("\0" + path[1:] if path.startswith("@") else path)
                sock.settimeout(timeout)
            except BlockingIOError:
                sock.close()
                raise TimeoutError from None
            except BaseException:
                sock.close()
                raise
            return sock
        assert not isinstance(address, FdAddress)
        return socket.create_connection((address.host, address.port), timeout)
    except ConnectionRefusedError:
        reason = "connection refused: nothing listens there, is epolld running?"
    except FileNotFoundError:
        reason = "no such socket: is epolld running, and is this one of its bind addresses?"
    except PermissionError:
        reason = "permission denied: see mode, owner and group of this bind address"
    except TimeoutError:
        reason = f"no connection within {format_duration(timeout)}"
    except (socket.gaierror, UnicodeError) as error:
        reason = f"cannot resolve the host name: {getattr(error, 'strerror', None) or error}"
    except OSError as error:
        reason = error.strerror or str(error)
    raise ServerError(f"{address}: {reason}")


def relay(sock: socket.socket, show: Callable[[bytes], None], timeout: float) -> None:
    """Send all of standard input, half-close, and show the answers, both at the same time.

    Sending first and reading then would deadlock: once the answers fill the buffers between,
    a server stops reading until somebody takes them. Input is read a chunk at a time, the next
    one only when the last is sent, so that memory stays bounded.
    Raises ServerError if the server leaves before it has all, or is silent for `timeout` seconds.
    """
    sock.setblocking(False)
    pending = b""  # read, but not yet sent
    input_open = True  # more may come from standard input
    refused = False  # the server takes no more; what it said before may still be on its way
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(STDIN, select.POLLIN)
    while True:
        idle = input_open and not pending  # we wait for the user, who may take any time
        events = dict(poller.poll(None if idle else timeout * 1000))
        if not events:
            raise ServerError(f"the server is silent for {format_duration(timeout)}")
        if STDIN in events:
            poller.unregister(STDIN)
            pending = os.read(STDIN, CHUNK)
            if pending:
                poller.modify(sock, select.POLLIN | select.POLLOUT)
            else:
                input_open = False
                with contextlib.suppress(OSError):  # gone already: recv() will tell
                    sock.shutdown(socket.SHUT_WR)
        event = events.get(sock.fileno(), 0)
        if event & select.POLLOUT and pending:
            try:
                pending = pending[sock.send(pending) :]
            except ConnectionError:
                refused, pending = True, b""
                poller.modify(sock, select.POLLIN)
            else:
                if not pending:
                    poller.modify(sock, select.POLLIN)
                    poller.register(STDIN, select.POLLIN)
        if event & ~select.POLLOUT:
            answer = receive(sock)
            if answer:
                show(answer)
                continue
            if refused or pending or (input_open and not at_end(STDIN)):
                raise ServerError("the server closed the connection before it had all input")
            return


def at_end(fd: int) -> bool:
    """Tell whether `fd` has reached its end, without waiting for it."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0)) and not os.read(fd, 1)


def receive(sock: socket.socket) -> bytes:
    """Return what has arrived on `sock`, b"" at its end; ServerError if it was cut off."""
    try:
        return sock.recv(CHUNK)
    except ConnectionError:
        raise ServerError("the server cut the connection off") from None


def show_answer(sock: socket.socket, first: float) -> bool:
    """Show one answer as it arrives; return False if none begins within `first` seconds.

    The answer is complete when it ends with a newline, or when after its first bytes nothing
    comes for QUIET seconds. Raises ServerError when the server ends the connection.
    """
    escaper = Escaper()
    ready = select.poll()
    ready.register(sock, select.POLLIN)
    wait = first
    last = "\n"  # what the line on the screen ends with: the prompt begins a line of its own
    data = b""
    try:
        while not data.endswith(b"\n") and ready.poll(wait * 1000):
            data = receive(sock)
            if not data:
                raise ServerError("the server closed the connection")
            text = escaper.escape(data)
            print(text, end="", flush=True)
            last, wait = text or last, QUIET
    finally:
        text = escaper.escape(b"", final=True)
        if not (text or last).endswith("\n"):
            text += "\n"
        print(text, end="", flush=True)
    return bool(data)


def converse(sock: socket.socket, timeout: float) -> None:
    """Prompt for lines, send each, show its answer; until `q` or the end of the input."""
    while True:
        show_answer(sock, 0)  # a greeting, or what came late
        try:
            line = input(PROMPT)
        except EOFError:
            print()
            return
        if line == "q":
            return
        if not line:
            continue
        show_answer(sock, 0)  # so that it is not taken for the answer to this line
        try:
            sock.sendall(line.encode("utf-8", "surrogateescape") + b"\n")
        except TimeoutError:
            raise ServerError(f"the server takes nothing for {format_duration(timeout)}") from None
        except ConnectionError:
            raise ServerError("the server closed the connection") from None
        if not show_answer(sock, timeout):
            complain(f"no answer within {format_duration(timeout)}")


@contextlib.contextmanager
def line_editing() -> Iterator[None]:
    """Give `input()` line editing and a history that outlives the program.

    The history may hold secrets, so that only its owner may read it. That it cannot be kept
    (a read-only home) is no reason to bother anybody.
    """
    try:
        import readline  # not built into every Python
    except ImportError:
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = os.path.join(state, "epolld", "history")
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        os.chmod(path, 0o600)  # it may be older than this rule
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)


def run(address: Address, timeout: float) -> None:
    """Connect, and be a conversation on a terminal or a filter in a pipe."""
    with connect(address, timeout) as sock:
        if os.isatty(STDIN):
            with line_editing():
                converse(sock, timeout)
        elif os.isatty(STDOUT):
            escaper = Escaper()
            relay(sock, lambda data: print(escaper.escape(data), end="", flush=True), timeout)
            print(escaper.escape(b"", final=True), end="", flush=True)
        else:
            relay(sock, write_raw, timeout)


def write_raw(data: bytes) -> None:
    """Write all of `data` to standard output as it is."""
    while data:
        data = data[os.write(STDOUT, data) :]


def complain(message: str) -> None:
    """Tell the user on standard error."""
    print(f"epolld-client: {message}", file=sys.stderr, flush=True)


def prepare_standard_streams() -> None:
    """See to it that no byte the terminal cannot take is an error, and none goes astray."""
    for fd in (STDIN, STDOUT):
        try:
            os.fstat(fd)
        except OSError:  # closed by the caller: the socket would get this number
            os.open(os.devnull, os.O_RDWR)
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def parse_arguments(arguments: list[str] | None) -> tuple[Address, float]:
    """Return the server's address and the timeout in seconds; may end the program (usage)."""
    parser = Parser(
        prog="epolld-client",
        description="Talk to a server: line by line on a terminal, as a filter in a pipe.",
        epilog="Exit codes: 0 well, 64 wrong usage, 69 server unavailable, 130 interrupted.",
    )
    parser.add_argument(
        "server",
        nargs="?",
        default=DEFAULT_SERVER,
        metavar="HOST:PORT | unix:PATH",
        help="where to connect, also [IPV6]:PORT (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        default=str(DEFAULT_TIMEOUT),
        metavar="SECONDS",
        help="longest wait for a connection or for any answer, also 500ms, 2m (default: 5)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    options = parser.parse_args(arguments)
    try:
        address = parse_address(options.server)
        timeout = parse_duration(options.timeout)
        if isinstance(address, FdAddress):
            raise UsageError("fd:N is an address for servers; give HOST:PORT or unix:PATH")
        if timeout <= 0:
            raise UsageError("--timeout must be more than 0")
    except (ValueError, UsageError) as error:
        parser.error(str(error))
    return address, timeout


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    address, timeout = parse_arguments(arguments)
    prepare_standard_streams()
    try:
        run(address, timeout)
    except KeyboardInterrupt:
        print()
        return INTERRUPTED
    except BrokenPipeError:  # standard output's; the socket's are ServerErrors
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)  # or Python complains as it leaves
        return OUTPUT_CLOSED
    except EpolldError as error:
        complain(str(error))
        return error.exit_code
    except OSError as error:  # standard input or output: a directory, a full disk
        complain(f"standard input or output: {error.strerror or error}")
        return ExitCode.CANNOT_WRITE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
