"""What a worker process is from outside: its title, its group, what it holds, what it ignores."""

import os
import re
import signal
from collections.abc import Callable

from harness import Config, Daemon, upper_at
from processes import descriptors, eventually, listeners, parent, status, title

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def test_titles(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], master={"title": "my server"}, workers={"count": 3})
    assert title(running.pid) == "my server: master"
    titles = {title(worker.pid) for worker in running.wait_workers(3)}
    assert titles == {f"my server: worker {slot} gen 1" for slot in range(3)}
    running.client(running.address("who")).line()
    running.reload()
    serving = {f"my server: worker {slot} gen 2" for slot in range(3)}
    draining = {f"my server: worker {slot} gen 1 (draining)" for slot in range(3)}

    def settled() -> bool:
        now = {title(worker.pid) for worker in running.workers()}
        return serving < now and len(now) == 4 and len(now & draining) == 1

    eventually(settled, 5, "the new ones, and the one with a connection")


def test_each_has_a_process_group_of_its_own(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    for worker in running.wait_workers(2):
        assert parent(worker.pid) == running.pid
        assert os.getpgid(worker.pid) == worker.pid


def test_only_the_descriptors_it_needs(daemon: Callable[..., Daemon]) -> None:
    """After reloads too, and after the death of a sibling."""
    running = daemon(services=[upper_at(["127.0.0.1:0", "unix:@epolld-test-hygiene"])])
    for _ in range(2):
        running.reload()
    victim = running.wait_workers(2, generation=3)[0]
    running.send(signal.SIGKILL, victim.pid)
    running.expect("killed by SIGKILL")
    running.allow("next try in")
    running.wait_log("is ready")
    for worker in running.wait_workers(2, generation=3):
        held = descriptors(worker.pid)
        assert len(listeners(worker.pid)) == 2
        for fd in listeners(worker.pid):
            del held[fd]
        assert held.pop(0) == held.pop(1) == os.devnull
        stderr = held.pop(2)
        kinds = sorted(re.sub(r":.*", "", what) for what in held.values() if what != stderr)
        # The scoreboard's memory, of which mmap keeps a descriptor; its own epoll object; both
        # ends of the pipe that signals wake it by; the channel.
        assert kinds == ["/memfd", "anon_inode", "pipe", "pipe", "socket"], held
        assert len([what for what in held.values() if what == stderr]) <= 1  # the log's own


def test_signals_for_the_master_are_ignored(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 1}, services=[WHO])
    client = running.client(running.address("who"))
    pid = client.line()
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU):
        running.send(number, int(pid))
        assert client.ask(b"?", len(pid) + 1).strip() == pid
    running.send(signal.SIGPIPE, int(pid))
    assert client.ask(b"?", len(pid) + 1).strip() == pid
    assert [worker.pid for worker in running.workers()] == [int(pid)]


def test_term_and_quit_drain_it_and_it_is_replaced(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 2}, services=[WHO])
    for number in (signal.SIGTERM, signal.SIGQUIT):
        client = running.client(running.address("who"))
        pid = int(client.line())
        running.send(number, pid)
        eventually(lambda pid=pid: title(pid).endswith("(draining)"), 5)
        assert int(client.ask(b"?", len(str(pid)) + 1)) == pid
        other = running.client(running.address("who"))
        assert int(other.line()) != pid
        other.close()
        client.close()
        eventually(lambda pid=pid: pid not in [w.pid for w in running.wait_workers(2)], 5)
    running.expect(r"warning .* exited with status 0")
    running.allow("next try in")


def test_int_ends_it_at_once_and_it_is_replaced(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO])
    client = running.client(running.address("who"))
    pid = int(client.line())
    running.send(signal.SIGINT, pid)
    assert client.is_ended()
    eventually(lambda: pid not in [w.pid for w in running.wait_workers(2)], 5)
    running.expect(r"warning .* exited with status 0")
    running.allow("next try in")


def test_no_signal_is_blocked_or_left_to_chance(daemon: Callable[..., Daemon]) -> None:
    worker = daemon().wait_workers(2)[0]
    facts = status(worker.pid)
    assert int(facts["SigBlk"], 16) == 0
    caught = int(facts["SigCgt"], 16)
    for number in (1, 2, 3, 10, 12, 15, 6, 11, 28):
        assert caught >> (number - 1) & 1, signal.Signals(number)
