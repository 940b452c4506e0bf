"""A worker whose loop does not turn is reported and replaced; one that only slept is not."""

import os
import signal
import time
from collections.abc import Callable

from harness import Config, Daemon
from processes import eventually

from epolld.scoreboard import Column, Scoreboard

TROUBLE: Config = {"name": "trouble", "protocol": "protocols:Trouble", "bind": "127.0.0.1:0"}
STACKS = ("^$", "^Current thread", "^Thread", '^  File "', "^Extension modules: ", "next try in")


def stick(daemon: Callable[..., Daemon], how: bytes) -> tuple[Daemon, int, str]:
    """A daemon with a stuck worker, its pid, and the address of the client that did it."""
    running = daemon(services=[TROUBLE], workers={"stuck_timeout": "1s"})
    client = running.client(running.address("trouble"))
    pid = int(client.line())
    host, port = client.sock.getsockname()
    client.sock.sendall(how)
    return running, pid, f"{host}:{port}"


def test_endless_loop_in_a_callback(daemon: Callable[..., Daemon]) -> None:
    running, pid, peer = stick(daemon, b"spin")
    running.wait_log(rf"pid {pid}, .* killed by SIGABRT", 10)
    running.wait_workers(2)
    assert running.count_log("silent for") == 1
    running.expect(
        rf"error master.* worker \d \(pid {pid}, .*: silent for \ds > 1s \(stuck_timeout\)",
        "Fatal Python error: Aborted",
        r'File ".*/protocols\.py", line \d+ in spin',
        rf"critical worker\[{pid}\]: worker \d was serving {peer} \(trouble\) when it was aborted",
        "killed by SIGABRT",
    )
    running.allow(*STACKS)
    assert running.client(running.address("trouble")).line()


def test_stuck_in_c_code(daemon: Callable[..., Daemon]) -> None:
    """It runs no Python code any more; the stacks come all the same, and then it is killed."""
    running, pid, _peer = stick(daemon, b"block")
    running.wait_log(rf"pid {pid}, .* killed by SIGKILL", 6)
    running.wait_workers(2)
    running.expect(
        r"silent for \ds > 1s \(stuck_timeout\)",
        "Fatal Python error: Aborted",
        r'File ".*/protocols\.py", line \d+ in block',
        "aborted, but still there, killing it",
        "killed by SIGKILL",
    )
    running.allow(*STACKS)


def test_a_stopped_worker_is_replaced(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"stuck_timeout": "1s"})
    pid = running.wait_workers(2)[0].pid
    running.send(signal.SIGSTOP, pid)
    running.wait_log(rf"pid {pid}, .* killed by SIG", 6)
    running.wait_workers(2)
    running.expect("silent for", "aborted, but still there", "killed by SIGKILL")
    running.allow(*STACKS)


def test_a_master_that_slept_kills_nobody(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"stuck_timeout": "2s"})
    before = running.wait_workers(2)
    running.send(signal.SIGSTOP)
    time.sleep(4)  # what it sleeps; there is no event to wait for
    running.send(signal.SIGCONT)
    time.sleep(1.5)  # it looks once a second
    assert running.workers() == before


def test_a_machine_that_slept_kills_nobody(daemon: Callable[..., Daemon]) -> None:
    """All processes stop, master first or last."""
    running = daemon(workers={"stuck_timeout": "2s"})
    before = running.wait_workers(2)
    everybody = [*(worker.pid for worker in before), running.pid]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in reversed(everybody):  # the master wakes first, and looks
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.5)
    assert running.workers() == before


def test_stuck_timeout_0_is_off(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[TROUBLE], workers={"stuck_timeout": 0, "graceful_timeout": "200ms"})
    client = running.client(running.address("trouble"))
    pid = int(client.line())
    client.sock.sendall(b"spin")
    time.sleep(2.5)
    assert pid in [worker.pid for worker in running.workers()]
    running.send(signal.SIGKILL, pid)
    eventually(lambda: pid not in [worker.pid for worker in running.wait_workers(2)])
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_a_short_limit_has_several_heartbeats(daemon: Callable[..., Daemon]) -> None:
    """So that a look of the master's which falls between two of them finds no silence."""
    running = daemon(workers={"stuck_timeout": "1s", "count": 1})
    folder = f"/proc/{running.pid}/fd"
    links = (f"{folder}/{n}" for n in os.listdir(folder))
    memory = next(link for link in links if "epolld-scoreboard" in os.readlink(link))
    board = Scoreboard(fd=os.open(memory, os.O_RDWR))
    beats: list[int] = []

    def look() -> bool:
        beat = max(board.column(Column.HEARTBEAT))
        if beat not in beats:
            beats.append(beat)
        return len(beats) == 4

    eventually(look)
    board.close_descriptor()
    assert beats[-1] - beats[1] < 0.9e9  # two gaps of a quarter of a second; ticks: two seconds
