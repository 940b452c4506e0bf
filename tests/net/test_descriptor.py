"""Peers as they are kept, and what is asked of a bare descriptor."""

import os
import socket

import pytest
from wiring import reset, tcp_pair, unix_pair

from epolld.net import descriptor


@pytest.mark.parametrize(
    "peer",
    [
        ("192.0.2.7", 4711),
        ("0.0.0.0", 0),
        ("255.255.255.255", 65535),
        ("2001:db8::7", 4711, 0, 0),
        ("fe80::1%lo", 1, 0, 1),
        "",
        "/run/x.sock",
        b"\x00abstract",
        ("not an address", 1),
    ],
)
def test_a_peer_is_kept_whole(peer: object) -> None:
    assert descriptor.unpack_peer(descriptor.pack_peer(peer)) == peer


def test_an_ipv4_peer_is_one_number() -> None:
    assert isinstance(descriptor.pack_peer(("127.0.0.1", 1688)), int)


def test_borrowing_leaves_the_descriptor_open() -> None:
    ours, theirs = tcp_pair()
    address = ours.getsockname()
    fd = ours.detach()
    assert descriptor.local_address(fd) == address
    descriptor.shutdown(fd, socket.SHUT_WR)
    assert theirs.recv(1) == b""
    assert descriptor.pending_error(fd) is None
    os.fstat(fd)
    os.close(fd)
    theirs.close()


def test_a_pending_error_is_taken_once() -> None:
    ours, theirs = tcp_pair()
    reset(theirs)
    error = descriptor.pending_error(ours.fileno())
    assert isinstance(error, ConnectionResetError)
    assert descriptor.pending_error(ours.fileno()) is None
    ours.close()


def test_unix_addresses_are_told_too() -> None:
    ours, theirs = unix_pair()
    assert descriptor.local_address(ours.fileno()) == ""
    ours.close()
    theirs.close()
