"""Checked streams over reloads and upgrades: not one byte lost, doubled or out of order."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from harness import Daemon
from stream_check import (
    Answer,
    Arrivals,
    Brisk,
    HalfClosed,
    Halting,
    Numbered,
    Pattern,
    Slow,
    Stream,
    Streams,
    same,
    upper,
)

from epolld.services.chargen import ROUND

SERVICES: list[dict[str, Any]] = [
    {"name": "upper", "bind": "127.0.0.1:0"},
    {"name": "echo", "bind": "127.0.0.1:0"},
    {"name": "chargen", "bind": "127.0.0.1:0"},
    {"name": "records", "protocol": "movable:Records", "bind": "127.0.0.1:0"},
]


def open_streams(running: Daemon, streams: Streams) -> None:
    """A mixture on every service."""
    seed = 0

    def add(kind: type[Stream], count: int, service: str, answer: Callable[[], Answer]) -> None:
        nonlocal seed
        for _ in range(count):
            seed += 1
            streams.streams.append(kind(running.address(service), answer(), seed))

    for service, answer in (
        ("upper", lambda: upper),
        ("echo", lambda: same),
        ("records", Numbered),
    ):
        add(Brisk, 8, service, answer)
        add(Halting, 30, service, answer)
        add(Slow, 4, service, answer)
        add(HalfClosed, 3, service, answer)
    for _ in range(4):
        seed += 1
        streams.streams.append(Pattern(running.address("chargen"), ROUND, seed))


def upgrade(running: Daemon) -> None:
    """USR2, and wait until the new program has replaced all workers."""
    done = running.count_log("reload done")
    adopted = running.count_log("upgraded from")
    running.send(signal.SIGUSR2)
    running.wait_log("upgraded from", 10, adopted + 1)
    running.wait_log("reload (done|failed)", 10, done + 1)


@pytest.mark.timeout(120)
def test_ten_reloads_and_two_upgrades(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=SERVICES)
    with Arrivals(running.address("upper")) as arrivals, Streams() as streams:
        open_streams(running, streams)
        for turn in range(1, 13):
            if turn in (5, 9):
                upgrade(running)
            else:
                running.reload()
            running.wait_workers(2, generation=turn + 1)
    assert arrivals.served > 100
    assert running.count_log("connections moved") == 24


@pytest.mark.parametrize("service", ["records"])
def test_state_goes_on_in_the_middle_of_a_record(
    daemon: Callable[..., Daemon], service: str
) -> None:
    running = daemon(services=SERVICES)
    client = running.client(running.address(service))
    assert client.ask(b"first\nsec", 8) == b"1:first\n"
    running.reload()
    running.wait_workers(2, generation=2)
    assert client.ask(b"ond\n", 9) == b"2:second\n"
