"""A client of the control socket, in a few lines and without epolld's own code."""

import json
import socket
from pathlib import Path
from typing import Any

from harness import Daemon

TIMEOUT = 10.0  # seconds


class Control:
    """A connection to the control socket of a daemon."""

    def __init__(self, place: Daemon | Path, timeout: float = TIMEOUT) -> None:
        path = place.runtime / "control.sock" if isinstance(place, Daemon) else place
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))  # waits while the queue is full, as a time-out would not
        self.sock.settimeout(timeout)
        self._file = self.sock.makefile("rb")

    def send(self, command: str, **fields: Any) -> None:
        """Ask, and do not wait for the answer."""
        self.sock.sendall(json.dumps({"command": command, **fields}).encode() + b"\n")

    def line(self) -> dict[str, Any]:
        """The next line of an answer; {} at the end of the connection."""
        line = self._file.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        return answer

    def ask(self, command: str, **fields: Any) -> Any:
        """The result; that of a command that must not fail."""
        self.send(command, **fields)
        answer = self.line()
        assert answer["ok"], answer
        return answer["result"]

    def parts(self, command: str, **fields: Any) -> tuple[list[Any], dict[str, Any]]:
        """All items of an answer in parts, and its last line."""
        self.send(command, **fields)
        items: list[Any] = []
        while (answer := self.line()).get("more"):
            items += answer["result"]
        return items, answer

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.sock.close()
