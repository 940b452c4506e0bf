"""upper in ten lines, by netcat."""

import subprocess
from collections.abc import Callable

import needs

from epolld.testing import Daemon


def test_by_netcat(serve: Callable[..., Daemon]) -> None:
    host, port = serve("upper").address().split(":")
    said = subprocess.run(
        [needs.tool("nc", "netcat-openbsd"), "-N", host, port],
        input=b"hello\n",
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert said.stdout == b"HELLO\n"
