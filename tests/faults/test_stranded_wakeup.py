"""A worker that was woken for a new client dies before it accepts: a sibling serves the client."""

import time
from collections.abc import Callable

from accounts import as_before
from harness import Config, Daemon

# The worker that finds the file kills itself at the very moment in which it would accept; and its
# successor takes so long to start that the client is not its own.
DEADLY = """
import os, signal, time
from epolld.net import acceptor
from served import Marked

if os.path.exists("slow"):
    time.sleep(3)

real = acceptor.accept

def accept(listener):
    try:
        os.rename("deadly", "slow")
    except FileNotFoundError:
        return real(listener)
    os.kill(os.getpid(), signal.SIGKILL)

acceptor.accept = accept
"""


def test_a_sibling_serves_the_client(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {"services": [{"name": "marked", "protocol": "deadly:Marked"}], "workers": {"count": 3}}
    )
    made.write_module("deadly", DEADLY)
    made.start()
    with as_before(made):
        before = {worker.pid for worker in made.wait_workers(3)}
        (made.directory / "deadly").touch()
        begin = time.monotonic()
        client = made.client()
        client.send(b"hello\n")
        pid, _, rest = client.line().partition(b" ")
        assert rest == b"HELLO"
        assert int(pid) in before
        assert time.monotonic() - begin < 3  # a tick is one
        made.wait_log("killed by SIGKILL")
        assert before - {worker.pid for worker in made.wait_workers(3)}
    made.expect("killed by SIGKILL")
    made.allow("next try in")
