"""What a TLS port has to bear: silence, garbage, plain text, ends in mid-handshake, a hundred at
once, while others are served over TLS."""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from accounts import MARKED, under_load
from certificates import Authority
from harness import Client, Daemon
from processes import cpu_seconds

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets
# A ClientHello of TLS 1.2 and later begins so: a record of 512 bytes, of which few come.
HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(32)


def silence(client: Client) -> None:
    """Nothing at all."""


def half_a_handshake(client: Client) -> None:
    client.send(HALF_A_HELLO)


def end_in_the_handshake(client: Client) -> None:
    client.send(HALF_A_HELLO)
    client.half_close()


def reset_in_the_handshake(client: Client) -> None:
    client.send(HALF_A_HELLO)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def garbage(client: Client) -> None:
    client.send(os.urandom(4096))


def plain_text(client: Client) -> None:
    client.send(b"EHLO example.org\r\n")


def a_huge_record(client: Client) -> None:
    client.send(bytes.fromhex("160301ffff") + bytes(70_000))


ALL = [
    silence,
    half_a_handshake,
    end_in_the_handshake,
    reset_in_the_handshake,
    garbage,
    plain_text,
    a_huge_record,
]


def test_others_are_served(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {**authority.issue("localhost"), "handshake_timeout": "1s"}
    running = daemon(services=[{**MARKED, "tls": tls}])
    with under_load(running, tls=authority.client()) as load:
        workers = running.wait_workers(2)
        used = sum(cpu_seconds(worker.pid) for worker in workers)
        for act in ALL * 12:
            client = running.client()
            try:
                act(client)
            except ConnectionError:  # it was quicker
                continue
        running.wait_log("no handshake within 1s")
        load.wait_served(20)
        assert sum(cpu_seconds(worker.pid) for worker in workers) - used < 4
        for client in running._clients:  # each has ended, the silent ones, too
            if client.sock.fileno() >= 0:
                with pytest.raises((ConnectionError, EOFError)):
                    end(client)
        assert running.workers() == workers
    for told in ("plain text, not TLS", "no handshake within"):
        assert running.find_log(told)


def end(client: Client) -> None:
    """Read up to the end, whatever alert comes before it."""
    client.rest()
    raise EOFError
