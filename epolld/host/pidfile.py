"""The pid file: one daemon a file, and a number in it that can be trusted.

The lock on the file, not its existence, says that a daemon runs: the kernel drops it with the
last process that holds it, so a crash leaves a stale file that the next start replaces. The
lock is flock(2)'s, which belongs to the open file description: it survives the fork and the
exit of the parent that daemonizing means, and an execve that keeps the descriptor. (A lock of
fcntl(2) belongs to the process, and would be lost at the fork.) For the same reason every
forked child must `close` its copy, or a worker that outlives its master would hold the lock.

A reader never sees an empty or half-written file: each content is a new file, written and
locked under a temporary name and then linked or renamed into place.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time

from epolld.errors import AlreadyRunningError, PathError

MODE = 0o644  # anybody may know the PID
MAX_CONTENT = 64  # bytes; more is not a pid file
# A lock can be held for a moment by a start that replaces the stale file just now. Its PID is
# read from the new file, so wait for that: this many times so many seconds.
PATIENCE = 100
PAUSE = 0.01


class PidFile:
    """The pid file at `path`; ours between `acquire` and `release`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    @classmethod
    def adopt(cls, path: str, fd: int) -> "PidFile":
        """Take over the locked descriptor `fd` that came through an execve."""
        pidfile = cls(path)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # same description: no conflict
        os.set_inheritable(fd, False)
        pidfile._fd = fd
        return pidfile

    def fileno(self) -> int:
        """The locked descriptor, to be kept when daemonizing or upgrading; changes at `write`."""
        return self._fd

    def acquire(self) -> None:
        """Make the file ours, with our PID in it.

        Raises AlreadyRunningError when a running process holds it, and PathError when the
        place is missing or not safe.
        """
        self._publish(os.getpid())

    def write(self, pid: int) -> None:
        """Put another PID into our file, after daemonizing."""
        self._publish(pid)

    def release(self) -> None:
        """Remove the file if it is still ours, and unlock it."""
        if self._fd < 0:
            return
        # Unlink under the lock: who opened the file before finds out, once it gets the lock.
        if self._is_at_path(self._fd):
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Close this process's copy of the descriptor; the file stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _publish(self, pid: int) -> None:
        """Put a new, locked file with `pid` at the path, over ours, a stale one or none."""
        self._check_directory()
        temp, fd = self._create_temp(pid)
        try:
            tries = PATIENCE
            while not self._put_in_place(temp, patient=tries > 0):
                tries -= 1
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
        self.close()  # the file before this one, if any: unlinked by now
        self._fd = fd

    def _put_in_place(self, temp: str, patient: bool) -> bool:
        """One try; False when another process moved in between, so look again."""
        if self._fd >= 0 and self._is_at_path(self._fd):
            self._rename(temp)
            return True
        holder = self._open_existing()
        if holder is None:
            try:
                os.link(temp, self.path)  # never over an existing file, unlike rename
            except FileExistsError:
                return False
            except OSError as error:
                raise self._error("cannot create the pid file", error) from error
            with contextlib.suppress(OSError):
                os.unlink(temp)
            return True
        try:
            return self._replace_stale(holder, temp, patient)
        finally:
            os.close(holder)

    def _replace_stale(self, holder: int, temp: str, patient: bool) -> bool:
        """Rename `temp` over the file open as `holder`, if nobody holds that one."""
        content = os.pread(holder, MAX_CONTENT, 0).strip()
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = int(content) if content.isdigit() else 0
            if patient and not _is_alive(pid):
                time.sleep(PAUSE)
                return False
            raise AlreadyRunningError(
                f"{self.path}: already running as process {pid or 'unknown'}; "
                "stop that one, or set another master.pidfile"
            ) from None
        # Only who holds the lock of the file at the path may replace it. Between our open and
        # our lock its owner may have removed it, and another start put a new one there.
        if not self._is_at_path(holder):
            return False
        if content and not content.isdigit():
            raise PathError(
                f"{self.path}: not a pid file ({content[:20]!r}...); "
                "set master.pidfile to another name or remove it"
            )
        self._rename(temp)
        return True

    def _rename(self, temp: str) -> None:
        """Swap the new file in, atomically."""
        try:
            os.rename(temp, self.path)
        except OSError as error:
            raise self._error("cannot replace the pid file", error) from error

    def _open_existing(self) -> int | None:
        """The file at the path, open for locking; None if there is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PathError(
                    f"{self.path}: the pid file is a symbolic link; remove it"
                ) from None
            raise self._error("cannot open the pid file", error) from error
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise PathError(f"{self.path}: the pid file is not a regular file; choose another name")

    def _create_temp(self, pid: int) -> tuple[str, int]:
        """A new locked file with `pid` in it, beside the path."""
        directory, base = os.path.split(self.path)
        temp = os.path.join(directory, f".{base}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        except OSError as error:
            raise self._error("cannot create the pid file", error) from error
        try:
            os.fchmod(fd, MODE)  # whatever the umask
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, b"%d\n" % pid)
        except OSError as error:
            os.close(fd)
            os.unlink(temp)
            raise self._error("cannot write the pid file", error) from error
        return temp, fd

    def _check_directory(self) -> None:
        """Refuse a directory that is missing, or where anybody could swap our file."""
        directory = os.path.dirname(self.path) or "."
        try:
            mode = os.stat(directory).st_mode
        except OSError as error:
            raise PathError(
                f"{self.path}: no directory for the pid file: {error.strerror}; "
                f"create {directory} or set master.pidfile"
            ) from error
        if not stat.S_ISDIR(mode):
            raise PathError(f"{self.path}: {directory} is not a directory; set master.pidfile")
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PathError(
                f"{self.path}: everybody may write to {directory} (mode "
                f"{stat.S_IMODE(mode):04o}); chmod o-w it or set master.pidfile"
            )

    def _is_at_path(self, fd: int) -> bool:
        """Whether the file open as `fd` is the one at the path now."""
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except OSError:
            return False

    def _error(self, what: str, error: OSError) -> PathError:
        """What failed, with the usual remedy."""
        directory = os.path.dirname(self.path) or "."
        return PathError(
            f"{self.path}: {what}: {error.strerror}; make {directory} writable for user "
            f"{os.geteuid()} or set master.pidfile"
        )


def _is_alive(pid: int) -> bool:
    """Whether a process `pid` exists, ours to signal or not."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
