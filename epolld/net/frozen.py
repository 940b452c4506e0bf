"""What a connection is while it travels from one worker to another: pure data and its encoding.

A descriptor travels by SCM_RIGHTS, and beside it goes everything that the sending process knows
and the kernel does not. What the kernel knows (bytes received and not yet read, bytes sent and
not yet acknowledged) needs no carrying: it belongs to the socket.
"""

from __future__ import annotations

from typing import Any

import msgspec

# Connections a message. The kernel's limit is 253 descriptors (SCM_MAX_FD), one of which may be
# a batch's own; fewer, because the connections of a batch all wait for the last of them. With 16 in
# place of 64 the longest pause of a busy client was a third (10,000 connections, 4 workers).
BATCH = 16


class Frozen(msgspec.Struct, frozen=True, array_like=True):
    """One connection at rest."""

    id: int
    service: str
    peer: Any  # as the transport keeps it
    age: float  # seconds
    silent: float  # seconds since the last byte in or out
    reading: bool
    closing: bool  # it ends once `unsent` is sent
    eof_received: bool
    eof_written: bool
    writing_paused: bool  # the protocol has been told to pause
    limits: tuple[int, int]  # the write buffer's (low, high), in bytes
    bytes_in: int
    bytes_out: int
    unsent: bytes  # accepted for writing; the kernel has not taken it yet
    state: bytes  # the protocol's own, from its freeze()
    facts: dict[str, Any] = {}  # for get_extra_info


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Donor to heir: connections, in the order of the descriptors beside them."""

    number: int
    connections: list[Frozen]


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """Heir to donor: of batch `number`, the first `taken` are mine; the others stay yours."""

    number: int
    taken: int


encode = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_receipt = msgspec.msgpack.Decoder(Receipt).decode
