"""sd_notify, the watchdog and inherited sockets, against a real datagram socket."""

import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.errors import BindError
from epolld.host.systemd import (
    FIRST_FD,
    InheritedSocket,
    Notifier,
    forget,
    listen_fds,
    notify,
    watchdog_interval,
)


@pytest.fixture
def receiver(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def test_notifier_speaks_the_protocol(receiver):
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": receiver.getsockname()})
    assert notifier.ready("4 workers\nREADY=0")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=4 workers READY=0"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = receiver.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after
    assert notifier.stopping()
    assert receiver.recv(4096) == b"STOPPING=1"
    assert notifier.watchdog()
    assert receiver.recv(4096) == b"WATCHDOG=1"
    assert notifier.status("x" * 9999)
    assert receiver.recv(65536) == b"STATUS=" + b"x" * 512


def test_notify_reads_the_environment(receiver, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", receiver.getsockname())
    assert notify("READY=1")
    assert receiver.recv(4096) == b"READY=1"


def test_notify_abstract_address():
    name = f"epolld-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.setblocking(False)
        assert notify("A=1", "B=2", address="@" + name)
        assert sock.recv(100) == b"A=1\nB=2"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "vsock:2:9", "/" + "x" * 500, "/a\0b"])
def test_notify_never_raises(address):
    assert notify("READY=1", address=address) is False


def test_silent_without_systemd(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Notifier.from_environ({}).ready("x") is False
    assert notify("READY=1") is False


def test_notify_does_not_block_when_the_queue_is_full(receiver):
    address = receiver.getsockname()
    sent = 0
    while notify("READY=1", address=address):
        sent += 1
        assert sent < 100_000
    assert sent >= 1


def test_watchdog_is_half_of_the_limit():
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}, 5) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "5"}, 5) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "6"}, 5) is None


@given(st.dictionaries(st.sampled_from(["WATCHDOG_USEC", "WATCHDOG_PID"]), st.text(max_size=25)))
def test_watchdog_survives_any_environment(environ):
    interval = watchdog_interval(environ, 5)
    assert interval is None or interval > 0


def test_listen_fds_takes_descriptors_and_makes_them_close_on_exec(tmp_path):
    # In a child: descriptors 3 and 4 of this process are not ours to replace.
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            null = os.open(os.devnull, os.O_RDONLY)
            source = os.dup(null)
            report = os.dup2(write_fd, 100)
            for fd in (FIRST_FD, FIRST_FD + 1):
                os.dup2(source, fd, inheritable=True)
            environ = {"LISTEN_PID": "9", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "upper:echo"}
            found = listen_fds(environ, 9)
            flags = [os.get_inheritable(one.fd) for one in found]
            os.write(report, repr((found, flags)).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    expected = [InheritedSocket(3, "upper"), InheritedSocket(4, "echo")]
    assert os.read(read_fd, 4096).decode() == repr((expected, [False, False]))
    os.close(read_fd)


def test_listen_fds_for_another_process_are_ignored():
    assert listen_fds({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, 9) == []
    assert listen_fds({}, 9) == []
    assert listen_fds({"LISTEN_PID": "9", "LISTEN_FDS": "0"}, 9) == []


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"LISTEN_FDS": "two"}, "not a number"),
        ({"LISTEN_FDS": "-1"}, "not a number"),
        ({}, "not a number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "only"}, "1 names for LISTEN_FDS=2"),
    ],
)
def test_listen_fds_refuses_contradictions(environ, text):
    with pytest.raises(BindError, match=text):
        listen_fds({"LISTEN_PID": "9", **environ}, 9)


def test_listen_fds_refuses_a_closed_descriptor(monkeypatch):
    closed = os.open(os.devnull, os.O_RDONLY)
    os.close(closed)
    monkeypatch.setattr("epolld.host.systemd.FIRST_FD", closed)
    with pytest.raises(BindError, match="not open"):
        listen_fds({"LISTEN_PID": "9", "LISTEN_FDS": "1"}, 9)


def test_forget_removes_only_these():
    environ = {"NOTIFY_SOCKET": "x", "LISTEN_FDS": "1", "WATCHDOG_PID": "2", "PATH": "/bin"}
    forget(environ)
    assert environ == {"PATH": "/bin"}
