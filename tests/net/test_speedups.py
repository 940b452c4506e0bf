"""What is in C beside the Python it stands for; and that it may be missing.

Most of its tests are those of what it stands for: see BOTH_WAYS in conftest.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import needs
import pytest
from wiring import Notes, narrow, run_until, serve, serve_in_c, settle, tcp_pair, unix_pair

from epolld.net import descriptor, speedups
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.transport import Transport, settle_all
from epolld.net.transport import log as transport_log

Accept = Callable[[socket.socket], tuple[int, Any]]


@pytest.fixture(params=["python", "c"])
def accept(request: pytest.FixtureRequest) -> Accept:
    if request.param == "python":
        return descriptor.accept
    needs.c_extension()
    return speedups.fastest_accept


@contextlib.contextmanager
def accepted(accept: Accept, listener: socket.socket, client: socket.socket) -> Iterator[Any]:
    """The address of `client` as accept() gives it, and the accepted descriptor."""
    with listener, client:
        listener.listen()
        listener.setblocking(False)
        client.connect(listener.getsockname())
        fd, peer = accept(listener)
        try:
            yield fd, peer
        finally:
            os.close(fd)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.254", "::1"])
def test_accept_over_ip(accept: Accept, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener, client = socket.socket(family), socket.socket(family)
    listener.bind((host, 0))
    with accepted(accept, listener, client) as (fd, peer):
        assert descriptor.unpack_peer(peer) == client.getsockname()
        assert peer == descriptor.pack_peer(client.getsockname())
        assert not os.get_blocking(fd)
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


@pytest.mark.parametrize("name", ["", "\0abstract-client", "named", "é"])
def test_accept_over_unix_sockets(accept: Accept, name: str, tmp_path: Path) -> None:
    listener, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "listener"))
    if name:
        client.bind(f"{name}-{os.getpid()}" if name[0] == "\0" else str(tmp_path / name))
    with accepted(accept, listener, client) as (_, peer):
        assert peer == client.getsockname()


def test_accept_with_nobody_there(accept: Accept) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            accept(listener)
    with pytest.raises((OSError, ValueError)):  # it is closed
        accept(listener)


def test_what_serves_is_in_c_where_that_was_built() -> None:
    needs.c_extension()
    assert Service.transport_type is speedups.CompiledTransport
    assert type(speedups.CompiledTransport.write) is not type(Transport.write)


@pytest.mark.parametrize("cause", ["EPOLLD_NO_EXTENSIONS", "not built"])
def test_all_is_there_without_it(cause: str) -> None:
    code = """if 1:
        import sys
        if sys.argv[1] == "not built":
            sys.modules["epolld.net._speedups"] = None
        from epolld.net import acceptor, descriptor, service, transport
        assert service.Service.transport_type is transport.Transport
        assert service.fastest_settle_all is transport.settle_all
        assert acceptor.accept is descriptor.accept
    """
    environment = {**os.environ, "EPOLLD_NO_EXTENSIONS": "1" if cause != "not built" else ""}
    subprocess.run([sys.executable, "-c", code, cause], env=environment, check=True)


def test_a_transport_that_is_not_whole_raises() -> None:
    """Where Python code would raise AttributeError, C must not take a step."""
    needs.c_extension()
    bare = object.__new__(speedups.CompiledTransport)
    for call in (
        lambda: bare.write(b"x"),
        lambda: bare.on_ready(1),
        lambda: bare.on_ready(1 << 80),
        lambda: speedups.fastest_settle_all((bare,)),
        lambda: speedups.fastest_settle_all(("no transport",)),  # type: ignore[arg-type]
        lambda: speedups.fastest_settle_all(1),  # type: ignore[arg-type]
    ):
        with pytest.raises((AttributeError, TypeError)):
            call()
    with pytest.raises(TypeError):
        speedups.CompiledTransport.write("no transport", b"x")  # type: ignore[arg-type]


def test_nothing_is_kept_or_freed_twice(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """References are counted by hand in C: no block of memory may be left over or go missing."""
    needs.c_extension()
    serve_in_c(monkeypatch)
    monkeypatch.setattr(transport_log, "disabled", True)  # pytest would keep what is logged

    def answer(protocol: Notes, data: bytes) -> None:
        protocol.trace.clear()
        protocol.transport.write(data)
        if data == b"fail":
            raise ValueError("a bad protocol")

    def once() -> None:
        ours, peer = unix_pair()
        narrow(ours)
        notes = Notes(data_received=answer)
        transport = serve(loop, ours, notes)
        with peer:
            for data in (b"x", b"y" * 300, b"z" * 70000):
                peer.send(data)
                settle(loop, 2)
            transport.write(b"x" * 1000000)  # most of it is kept
            settle_all([transport])
            speedups.fastest_settle_all([transport])
            while transport.get_write_buffer_size():
                peer.recv(1 << 20)
                settle(loop, 2)
            peer.send(b"fail")
            settle(loop, 4)

    for _ in range(20):  # caches fill
        once()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(200):
        once()
    gc.collect()
    assert abs(sys.getallocatedblocks() - before) < 100


def test_an_error_of_writing_ends_the_connection(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.c_extension()
    serve_in_c(monkeypatch)
    ours, peer = tcp_pair()
    notes = Notes()
    transport = serve(loop, ours, notes)
    descriptor.shutdown(transport.fileno(), socket.SHUT_WR)
    transport.write(b"x")
    run_until(loop, lambda: notes.lost)
    assert notes.trace[-1][1].errno == errno.EPIPE
    assert transport.is_closed()
    peer.close()
