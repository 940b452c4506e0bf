"""A worker that was woken for a new client dies before it accepts: a sibling serves the client."""

import time
from collections.abc import Callable

from accounts import as_before
from harness import Config, Daemon

# The worker that finds the file kills itself at the very moment in which it would accept.
DEADLY = """
import os, signal, socket
from served import Marked

real = socket.socket._accept

def accept(self):
    try:
        os.unlink("deadly")
    except FileNotFoundError:
        return real(self)
    os.kill(os.getpid(), signal.SIGKILL)

socket.socket._accept = accept
"""


def test_a_sibling_serves_the_client(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {"services": [{"name": "marked", "protocol": "deadly:Marked"}], "workers": {"count": 3}}
    )
    made.write_module("deadly", DEADLY)
    made.start()
    with as_before(made):
        for _ in range(3):
            before = {worker.pid for worker in made.wait_workers(3)}
            (made.directory / "deadly").touch()
            begin = time.monotonic()
            client = made.client()
            client.send(b"hello\n")
            assert client.line().endswith(b" HELLO")
            assert (
                time.monotonic() - begin < 4
            )  # a tick is one; without it, the client waits for ever
            made.wait_log("killed by SIGKILL")
            assert not (made.directory / "deadly").exists()
            assert before - {worker.pid for worker in made.wait_workers(3)}
            made.hang_up()
    made.expect("killed by SIGKILL")
    made.allow("next try in")
