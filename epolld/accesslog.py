"""The access log: a line a connection when it ends, into the daemon's log or a file of its own.

Refuses to know what a service is: it is told the facts. A leaf.
"""

from __future__ import annotations

import logging

from epolld import log as logs

NAME = "epolld.access"


class AccessLog:
    """Where the lines of one service go."""

    def __init__(self, logger: logging.Logger, file: logs.LineHandler | None) -> None:
        self._logger = logger
        self._file = file

    def write(
        self,
        service: str,
        peer: str,
        id: int,
        age: float,
        bytes_in: int,
        bytes_out: int,
        cause: str,
    ) -> None:
        """A connection has ended; `age` in seconds. Never raises, never waits."""
        amount = f"{bytes_in} in, {bytes_out} out"
        text = f"{service}: {peer}: {cause} after {age:.3f}s, {amount}, id {id}"
        facts = {
            "service": service,
            "peer": peer,
            "id": str(id),  # more digits than JavaScript's numbers keep
            "age": round(age, 3),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "cause": cause,
        }
        self._logger.info("%s", text, extra={"epolld": facts})

    def adopt(self, fd: int) -> None:
        """Write to the file open as `fd` from now on, and own it."""
        assert self._file is not None
        logs.replace(self._file, fd)


def open_log(target: bool | str, format: str) -> AccessLog:
    """Into the daemon's log (True), or the file of this path; raises PathError."""
    if not isinstance(target, str):
        logger = logging.getLogger(NAME)
        logger.setLevel(logging.INFO)  # asked for, whatever else is logged
        return AccessLog(logger, None)
    logger = logging.Logger(NAME, logging.INFO)  # of nobody else, with no parent
    handler = logs.file_handler(target, format, "access_log")
    logger.addHandler(handler)
    return AccessLog(logger, handler)
