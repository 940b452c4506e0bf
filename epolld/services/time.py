"""time: sends the time as a number and closes (RFC 868)."""

from __future__ import annotations

import time

from epolld.net.protocol import Protocol
from epolld.net.transport import Transport

# Seconds from 1900-01-01 00:00 UTC, where the protocol begins, to 1970, where Unix does. RFC 868.
UNIX_EPOCH = 2_208_988_800


def seconds_since_1900(unix_time: float) -> bytes:
    """Four bytes, the most significant first. They start again from 0 on 2036-02-07.

    The RFC says nothing of that day; like NTP's, whose seconds are the same, its clients must
    know which era they live in.
    """
    return ((int(unix_time) + UNIX_EPOCH) % 2**32).to_bytes(4, "big")


class Time(Protocol):
    """Sends the four bytes and closes. Input is ignored."""

    __slots__ = ()

    def connection_made(self, transport: Transport) -> None:
        transport.write(seconds_since_1900(time.time()))
        transport.close()

    def freeze(self) -> bytes:
        return b""  # all is said; what is not sent yet travels by itself
