"""The client's side of the control socket: where it is, what is asked, what can go wrong.

The protocol is docs/control.md's. Refuses to know what an answer means, and how it is shown.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from epolld.host import controlsocket


class ExitCode(enum.IntEnum):
    """How `epolldctl` ends; those that <sysexits.h> has are its."""

    OK = 0
    FAILED = 1  # the daemon did not do it, and said why
    USAGE = 64
    NO_DAEMON = 69  # nobody listens at the control socket, or it ended amid the answer
    TIMED_OUT = 75
    PROTOCOL = 76  # what came is no answer
    NOT_ALLOWED = 77
    CONFIG = 78  # the configuration is refused: reload, upgrade


class ControlError(Exception):
    """The command has failed; the text is for people."""

    def __init__(self, exit_code: ExitCode, message: str, answer: dict[str, Any] | None = None):
        super().__init__(message)
        self.exit_code = exit_code
        self.answer = answer or {"ok": False, "error": exit_code.name.lower(), "message": message}


class Daemon:
    """The daemon at a control socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        self._path = path
        self._timeout = timeout
        self._sock: socket.socket | None = None

    def ask(self, command: str, patient: bool = False, **fields: Any) -> Iterator[Any]:
        """The results of all lines of the answer, as they come.

        `patient`: the answer may take as long as it likes, unless there is a time limit.
        Raises ControlError.
        """
        request = json.dumps({"command": command, **fields}).encode() + b"\n"
        try:
            sock = controlsocket.connect(self._path, self._timeout or 10.0)
            with sock, sock.makefile("rb") as lines:
                with contextlib.suppress(BrokenPipeError):  # it may have said why already
                    sock.sendall(request)
                if patient:
                    sock.settimeout(self._timeout)
                while True:
                    answer = _parse(lines.readline(), command)
                    if answer is None:
                        return
                    yield answer.get("result")
                    if not answer.get("more"):
                        return
        except TimeoutError:
            raise ControlError(
                ExitCode.TIMED_OUT, f"{self._path}: no answer in time; `--timeout` gives it more"
            ) from None
        except OSError as error:
            raise _unreachable(self._path, error) from None


def _parse(line: bytes, command: str) -> dict[str, Any] | None:
    """One line of an answer; None at the end of the daemon where that was asked for."""
    if not line:
        if command == "stop":
            return None
        raise ControlError(ExitCode.NO_DAEMON, "the daemon closed the connection before an answer")
    try:
        answer: dict[str, Any] = json.loads(line)
        fine = answer["ok"]
    except (ValueError, KeyError, TypeError):
        raise ControlError(ExitCode.PROTOCOL, f"not an answer: {line[:200]!r}") from None
    if fine:
        return answer
    code = ExitCode.FAILED
    if answer.get("error") == "denied":
        code = ExitCode.NOT_ALLOWED
    elif answer.get("exit_code") == ExitCode.CONFIG:
        code = ExitCode.CONFIG
    text = "\n".join([*answer.get("problems", ()), str(answer.get("message", "failed"))])
    raise ControlError(code, text, answer)


def _unreachable(path: str, error: OSError) -> ControlError:
    if isinstance(error, PermissionError):
        return ControlError(
            ExitCode.NOT_ALLOWED,
            f"{path}: {error.strerror}; only root, the daemon's user and master.control_group may",
        )
    nobody = isinstance(error, ConnectionRefusedError | FileNotFoundError)
    remedy = "; is epolld running?" if nobody else ""
    return ControlError(ExitCode.NO_DAEMON, f"{path}: {error.strerror or error}{remedy}")


def find(environ: Mapping[str, str], uid: int) -> str:
    """The control socket of the daemon that this user most likely means; raises ControlError."""
    places = controlsocket.candidates(environ, uid)
    closed = []
    for path in places:
        try:
            os.stat(path)
        except PermissionError:
            closed.append(path)
        except OSError:
            continue
        else:
            return path
    if closed:
        raise _unreachable(closed[0], PermissionError(13, "Permission denied"))
    raise ControlError(
        ExitCode.NO_DAEMON,
        f"no control socket at {', '.join(places)}; is epolld running? --socket says where else",
    )
