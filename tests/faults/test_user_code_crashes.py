"""User code crashes at import, in a start hook, in a callback, under load: the old generation goes
on, back-off keeps the machine at rest, and one bad connection is only its own."""

import signal
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Config, Daemon
from processes import cpu_seconds

GOOD = """
from epolld import Application
from served import Marked

class App(Application):
    pass
"""
BREAKS = {
    "an import": ("1 / 0\n", "ZeroDivisionError"),
    "its end at import": ("import os; os._exit(3)\n", "exited with status 3"),
    "a crash at import": ("import os; os.abort()\n", "killed by SIGABRT"),
    "a start hook": (
        GOOD.replace("    pass", "    def start(self, worker):\n        1 / 0"),
        "ZeroDivisionError",
    ),
}
STACKS = ("^$", "^Current thread", "^Thread", '^  File "', "^Extension modules: ", "^Fatal Python")


@pytest.mark.parametrize("what", BREAKS)
def test_the_old_generation_is_kept(make_daemon: Callable[[Config], Daemon], what: str) -> None:
    code, told = BREAKS[what]
    made = make_daemon(
        {
            "services": [{**MARKED, "protocol": "mine:Marked"}],
            "application": {"type": "mine:App"},
        }
    )
    made.write_module("mine", GOOD)
    made.start()
    with under_load(made) as load:
        before = made.wait_workers(2, generation=1)
        made.write_module("mine", code)
        made.reload(ok=False)
        load.wait_served(20)
        assert made.wait_workers(2) == before
        made.write_module("mine", GOOD)
        made.reload()
        load.wait_served(20)
    made.expect("reload failed", told)
    # Of two that crash at one time, the stacks may be mixed up with each other's and cut short.
    made.allow("cannot boot", "exited with status", *STACKS, r"^(?!\d{4}-\d\d-\d\d )")


def test_one_that_cannot_boot_backs_off(make_daemon: Callable[[Config], Daemon]) -> None:
    """While the sibling serves, the master hardly works."""
    made = make_daemon({"services": [{**MARKED, "protocol": "mine:Marked"}]})
    made.write_module("mine", GOOD)
    made.start()
    with under_load(made) as load:
        victim = made.wait_workers(2)[0].pid
        made.write_module("mine", "raise RuntimeError('broken')\n")
        made.send(signal.SIGKILL, victim)
        made.wait_log("next try in 0.4s")
        before, begin = cpu_seconds(made.pid), time.monotonic()
        made.wait_log("next try in 0.8s")
        assert cpu_seconds(made.pid) - before < 0.3 * (time.monotonic() - begin) + 0.1
        made.write_module("mine", GOOD)
        made.wait_workers(2, generation=1)
        load.may(reset=6, early_end=6)
        assert {trouble.pid for trouble in load.troubles} <= {victim, 0}
    made.expect("killed by SIGKILL", "cannot boot: .*broken", "exited with status 78")
    made.allow("next try in")


def test_connection_made_raises(make_daemon: Callable[[Config], Daemon]) -> None:
    """500 times, beside others: each is closed, the log is not flooded."""
    made = make_daemon({"services": [MARKED, {"name": "bad", "protocol": "bad:Bad"}]})
    made.write_module(
        "bad",
        "from epolld import Protocol\n"
        "class Bad(Protocol):\n"
        "    def connection_made(self, transport):\n"
        "        raise RuntimeError('not today')\n",
    )
    made.start()
    with under_load(made) as load:
        for _ in range(500):
            client = made.client(made.address("bad"))
            assert client.is_ended()
            client.close()
        load.wait_served(10)
    made.expect("connection_made.*not today", "more like this suppressed")
    assert made.count_log("not today") < 100
