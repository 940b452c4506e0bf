"""Go to the background: bind first, detach after, and tell the shell how it went.

The only user of python-daemon. Refuses to know what the daemon serves. What the library's
DaemonContext.open() does is worth knowing:

* it forks twice and leaves both parents by os._exit(0), so a shell would see success at once.
  Therefore the process is forked once more before, and the foreground parent waits for news.
* it closes every descriptor outside files_preserve, up to the hard limit, by os.closerange(),
  which is one close_range(2) a gap: quick even where the limit is a million.
* it registers an atexit handler (its own close(), which does nothing without a pid file);
  workers leave by os._exit() anyway.
* with its default signal_map it would ignore TTIN and TTOU and raise SystemExit at TERM, and
  prevent_core would forbid core dumps: both are turned off.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn

from epolld import log
from epolld.errors import ExitCode

MAX_REPORT = 65536  # bytes of a reason; a pipe holds as much, so the daemon never waits for us


class Report:
    """The daemon's line to the waiting foreground parent; good for one message."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # A copy in a worker would keep the pipe open after the daemon died, and the parent
        # would wait for as long as that worker lives.
        os.register_at_fork(after_in_child=self._forget)

    def fileno(self) -> int:
        """The pipe's end; -1 once the message was sent."""
        return self._fd

    def ready(self) -> None:
        """Let the parent exit 0, and let go of its terminal: from here stderr is /dev/null."""
        self._send(ExitCode.OK, "")
        _let_go_of_standard_error()

    def failed(self, code: int, reason: str) -> None:
        """Let the parent print `reason` and exit with `code`."""
        self._send(code, reason)

    def close(self) -> None:
        """Close the pipe; without a message before, the parent takes it for our death."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _forget(self) -> None:
        """In a forked child: what it has to say it says to its parent, the daemon."""
        if self._fd >= 0:
            self.close()
            _let_go_of_standard_error()

    def _send(self, code: int, reason: str) -> None:
        if self._fd < 0:
            return
        message = b"%d %s" % (code, reason.encode(errors="backslashreplace"))
        with contextlib.suppress(OSError):  # the parent was interrupted: nobody is left to tell
            os.write(self._fd, message[:MAX_REPORT])
        self.close()


def _let_go_of_standard_error() -> None:
    """Or `epolld --daemonize 2>&1 | tee start.log` would wait for the daemon's end."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 2)
    os.close(null)


def detach(keep: Iterable[int], umask: int, working_directory: str) -> Report:
    """Return in a daemon process, with the line to its parent; the parent itself never returns.

    `keep` are the descriptors that stay open: listeners, pid file; the log's stay anyway.
    Standard error stays what it was until `Report.ready`; the other two become /dev/null.
    Call it before threads and before signal handlers.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(write_fd)
        _await_report(pid, read_fd)
    os.close(read_fd)
    try:
        _open_context([*keep, *log.descriptors(), write_fd], umask, working_directory)
    except Exception as error:  # the library's own, or OSError; the caller is in the parent
        Report(write_fd).failed(
            ExitCode.BOOT_FAILED,
            f"cannot go to the background: {error}; see master.working_directory",
        )
        os._exit(ExitCode.BOOT_FAILED)
    return Report(write_fd)


def fill_standard_descriptors() -> None:
    """Open /dev/null where 0, 1 or 2 is closed (`epolld <&-`); the first thing a program does.

    Otherwise a listener gets such a number, and is lost when the standard streams are redirected.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: fd
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, mode, closefd=False))  # noqa: SIM115 (for the process's life)


def _open_context(keep: list[int], umask: int, working_directory: str) -> None:
    """Detach from terminal and session."""
    import daemon

    with open(os.devnull, "r+b", buffering=0) as null:
        daemon.DaemonContext(
            files_preserve=keep,
            umask=umask,
            working_directory=working_directory,
            detach_process=True,
            prevent_core=False,
            signal_map={},
            stdin=null,
            stdout=null,
            stderr=sys.stderr,
        ).open()


def _await_report(pid: int, fd: int) -> NoReturn:
    """Be the foreground parent: wait for the outcome, then exit as it says."""
    # Ctrl-C ends the wait; the daemon is in another session by then, and goes on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.waitpid(pid, 0)  # the first fork's middle process; it leaves once the daemon is forked
    message = b""
    while chunk := os.read(fd, MAX_REPORT):
        message += chunk
    code, reason = read_report(message)
    if reason:
        os.write(2, f"epolld: {reason}\n".encode(errors="backslashreplace"))
    # Not sys.exit: cleaning up is the daemon's, which has copies of everything we have.
    os._exit(code)


def read_report(message: bytes) -> tuple[int, str]:
    """Exit code and reason out of what came through the pipe before it was closed."""
    code, _, reason = message.partition(b" ")
    if not code.isdigit():
        return ExitCode.BOOT_FAILED, "the daemon died before it was ready; see its log"
    return int(code), reason.decode(errors="backslashreplace")
