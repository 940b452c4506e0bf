"""A worker is killed, or crashes, under load: only its own clients notice."""

import signal
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Daemon, free_port
from scrape import scrape

STACKS = ("^$", "^Current thread", "^Thread", '^  File "', "^Extension modules: ",
          "Fatal Python error: Segmentation fault")  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_only_its_own_clients_notice(daemon: Callable[..., Daemon], number: int) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    running = daemon(services=[MARKED], metrics={"bind": metrics})
    with under_load(running, new=2, living=6) as load:
        before = scrape(metrics).counters()
        victim = running.wait_workers(2)[1].pid
        begin = time.monotonic()
        running.send(number, victim)
        running.wait_log(r"worker 1 \(pid \d+, generation 1\) is ready", 5)
        assert time.monotonic() - begin < 2  # a second, and a machine that does other things, too
        load.wait_served(100)
        after = scrape(metrics).counters()
        assert {key: (before[key], after[key]) for key in before if after[key] < before[key]} == {}
        # Who was in the middle of a question; and one more each, which it had just accepted.
        load.may(reset=8, early_end=8)
        assert {trouble.pid for trouble in load.troubles} <= {victim, 0}
        assert not [t for t in load.troubles if t.kind == "living" and t.pid != victim]
    running.expect("killed by SIG")
    running.allow("next try in", *STACKS)
