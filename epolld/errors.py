"""What can go wrong at start-up, and the exit code that says so.

The numbers are those of BSD's <sysexits.h>, which systemd shows by name
("status=78/CONFIG"). A leaf: imports nothing of ours.
"""

import enum
from typing import NamedTuple


class ExitCode(enum.IntEnum):
    """How `epolld` ends, for scripts and for systemd's RestartPreventExitStatus=."""

    OK = 0
    PROBLEMS = 1  # --check found problems
    USAGE = 64  # EX_USAGE: the command line
    CANNOT_BIND = 69  # EX_UNAVAILABLE: an address is in use, or not ours to bind
    BOOT_FAILED = 70  # EX_SOFTWARE: a worker did not become ready
    CANNOT_WRITE = 73  # EX_CANTCREAT: pid file, log file, runtime directory
    ALREADY_RUNNING = 75  # EX_TEMPFAIL: another epolld holds the pid file
    NO_PRIVILEGE = 77  # EX_NOPERM: cannot become the configured user or group
    CONFIG = 78  # EX_CONFIG: the configuration


class EpolldError(Exception):
    """Base of all errors that end a start or refuse a reload; its text is for people."""

    exit_code = ExitCode.BOOT_FAILED


class UsageError(EpolldError):
    """The command line contradicts itself or the configuration."""

    exit_code = ExitCode.USAGE


class BindError(EpolldError):
    """A listening socket cannot be made; the text names the address and the remedy."""

    exit_code = ExitCode.CANNOT_BIND


class BootError(EpolldError):
    """A worker did not become ready; the text says which and why."""

    exit_code = ExitCode.BOOT_FAILED


class PathError(EpolldError):
    """A file or directory of the daemon's own cannot be made or is not safe to use."""

    exit_code = ExitCode.CANNOT_WRITE


class AlreadyRunningError(EpolldError):
    """Another process holds the pid file."""

    exit_code = ExitCode.ALREADY_RUNNING


class PrivilegeError(EpolldError):
    """The process cannot become who the configuration wants it to be."""

    exit_code = ExitCode.NO_PRIVILEGE


class Problem(NamedTuple):
    """One thing wrong with the configuration; `str()` is `file:line:column: path: message`.

    That is always one line: a key of the file may hold whatever YAML can write, escaped.
    """

    file: str
    line: int  # from 1; 0 where the problem has no place in the file
    column: int  # from 1
    path: str  # "services.upper.bind"; "" for the document itself
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class ConfigError(EpolldError):
    """The configuration is refused; `problems` holds all of them, in the file's order."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
