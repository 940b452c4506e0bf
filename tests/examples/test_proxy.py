"""The proxy, by socat and our client."""

import signal
import subprocess
import threading
from collections.abc import Callable

import needs
import pytest

from epolld.testing import Client, Daemon, free_port

BIG = bytes(range(64)) * 65536  # 4 MiB


@pytest.fixture
def backend(epolld_daemon: Callable[..., Daemon]) -> Daemon:
    return epolld_daemon({"services": [{"name": "upper"}]})


@pytest.fixture
def proxy(serve: Callable[..., Daemon], backend: Daemon) -> Daemon:
    return serve("proxy", port=int(backend.address().rpartition(":")[2]))


def test_by_socat(proxy: Daemon) -> None:
    said = subprocess.run(
        [needs.tool("socat"), "-t", "10", "-", f"TCP:{proxy.address()}"],
        input=b"hello\n" * 1000,
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert said.stdout == b"HELLO\n" * 1000


def test_much_in_both_directions_and_half_close(proxy: Daemon) -> None:
    client = proxy.client()

    def send() -> None:
        client.send(BIG)
        client.half_close()

    sender = threading.Thread(target=send)
    sender.start()
    assert client.rest() == BIG.upper()
    sender.join()


def test_the_backend_hangs_up(proxy: Daemon, backend: Daemon) -> None:
    client = proxy.client()
    assert client.ask(b"a") == b"A"
    backend.stop(signal.SIGINT)
    assert client.is_ended()


def test_the_client_breaks_off(proxy: Daemon, backend: Daemon) -> None:
    client = proxy.client()
    client.send(BIG[:100_000])  # and never reads the answer
    client.close()
    assert proxy.client().ask(b"a") == b"A"


def test_no_backend(serve: Callable[..., Daemon]) -> None:
    proxy = serve("proxy", port=free_port())
    assert Client(proxy.address()).is_ended()
    proxy.expect("no connection to the backend")
