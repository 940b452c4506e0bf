"""A client that has said all and waits for the answers: `printf ... | nc`."""

import subprocess
from collections.abc import Callable

import needs
from harness import Daemon


def test_half_close_gets_all_answers(daemon: Callable[..., Daemon]) -> None:
    client = daemon().client()
    sent = b"line\n" * 50_000
    client.sock.setblocking(True)
    client.sock.settimeout(8)
    # More than the buffers hold: the answers must be read meanwhile.
    answer = b""
    for start in range(0, len(sent), 10_000):
        answer += client.ask(sent[start : start + 10_000])
    client.half_close()
    assert answer + client.rest() == sent.upper()


def test_half_close_before_anything_was_read(daemon: Callable[..., Daemon]) -> None:
    client = daemon().client()
    client.sock.sendall(b"hello\n")
    client.half_close()
    assert client.rest() == b"HELLO\n"


def test_real_netcat(daemon: Callable[..., Daemon]) -> None:
    nc = needs.tool("nc", "netcat-openbsd")
    host, _, port = daemon().address().rpartition(":")
    done = subprocess.run(
        [nc, "-q1", host, port], input=b"hello\n", capture_output=True, timeout=10, check=True
    )
    assert done.stdout == b"HELLO\n"
