"""The accounts themselves: a fault that they do not see would be none."""

import socket
from collections.abc import Callable

import pytest
from accounts import MARKED, Load, State, at_rest, held, under_load
from harness import Daemon

UPPER = {"name": "upper", "bind": "127.0.0.1:0"}


def test_a_wrong_answer_is_told(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[UPPER])
    with (
        pytest.raises(AssertionError, match="answers question 1"),
        under_load(running, "upper", patience=1),
    ):
        pass


def test_a_lost_client_is_told_and_may_be_allowed(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[MARKED], workers={"count": 1})
    before = at_rest(running)
    (victim,) = running.wait_workers(1)
    load = Load(running.address())
    load.start()
    running.send(9, victim.pid)
    load.wait_served(20)
    load.stop()
    with pytest.raises(AssertionError, match="living"):
        load.judge()
    load.may(reset=9, early_end=9)
    load.judge()
    before.must_return(running)
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_what_is_left_is_told(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[MARKED])
    before = at_rest(running)
    host, _, port = running.address().rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"a")
        assert sock.recv(20)
        assert held(int(port), socket.AF_INET) == 1
        (running.runtime / "left").touch()
        told = " ".join(before.differences(State.of(running)))
        assert all(word in told for word in ("connections", "descriptors", "files"))
    (running.runtime / "left").unlink()
    before.must_return(running)
