"""chargen: sends a pattern of characters for as long as the client takes it (RFC 864)."""

from __future__ import annotations

from epolld.net.protocol import Protocol
from epolld.net.transport import Transport

WIDTH = 72  # characters a line, without its CRLF
PRINTABLE = bytes(range(0x20, 0x7F))  # the 95 printable characters of ASCII, space included

# Each line begins one character further round the ring than the line before. After 95 lines the
# pattern is where it began, so a round of it needs making only once.
RING = PRINTABLE + PRINTABLE[:WIDTH]
ROUND = b"".join(RING[start : start + WIDTH] + b"\r\n" for start in range(len(PRINTABLE)))

# What is sent in one turn: whole rounds, so that there is no place in the pattern to remember,
# and about as much as is read in one turn, so that other connections get theirs.
BLOCK = ROUND * (65536 // len(ROUND))


class Chargen(Protocol):
    """Sends without end. Input is thrown away, as the RFC says.

    Two things keep an endless stream from being an endless loop. What a slow client does not
    take pauses us until it has. And with a client so fast that the kernel takes everything,
    each block is a turn of its own. A client that has half-closed still gets its characters: by
    the RFC the stream ends with the connection.
    """

    __slots__ = ("_paused",)

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self._paused = False
        # Paused by the first byte that the kernel does not take, resumed when all are gone: so
        # at most one block a connection is in memory.
        transport.set_write_buffer_limits(high=0)
        self._send_block()

    def eof_received(self) -> bool:
        return True

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_block()

    def freeze(self) -> bytes:
        return b"paused" if self._paused else b""

    def thaw(self, state: bytes) -> None:
        self._paused = bool(state)
        if not self._paused:
            self._send_block()  # whole blocks are sent, so any block may come next

    def _send_block(self) -> None:
        """Send one block; the next comes when this one is gone, in another turn of the loop."""
        if self.transport.is_closing():  # the daemon is leaving: a goodbye must end
            return
        self.transport.write(BLOCK)  # may call pause_writing()
        if not self._paused:
            self.transport.call_later(0, self._send_block)
