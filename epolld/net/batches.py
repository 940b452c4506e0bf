"""A transport whose protocol makes many messages of what came in one receive.

A framing hands out messages one by one and collects the answers, to send them at once in the end.
That must not show: whoever writes to the connection, pauses or closes it amid such a batch finds
everything as if each answer had been sent in its turn. So this transport tells the framing before
it does what it is asked for. The plain transport has none of this, and its hot path is as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from epolld.net.transport import Buffer, Transport


class Batch(Protocol):
    """Who hands out messages, or holds some back while reading is paused."""

    def flush(self) -> None:
        """Write the answers that are collected: something else is about to be written."""

    def stop(self) -> None:
        """Hand out no more before you have looked at the transport again."""

    def data_received(self, data: bytes) -> None:
        """Go on with what is held back, then with `data`, which may be empty."""


if TYPE_CHECKING:
    Base = Transport
else:
    Base = object


class Batching(Base):
    """Mixed into a class of transports, before it; `batch` is a slot of theirs, empty without."""

    if TYPE_CHECKING:
        batch: Batch | None  # set during a batch, and while messages are held back
        write_through = Transport.write  # the transport's own
    else:
        __slots__ = ()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batch = None

    def write(self, data: Buffer) -> None:
        """As the transport's, after what was answered before."""
        if self.batch is not None:
            self.batch.flush()
        self.write_through(data)

    def write_eof(self) -> None:
        """As the transport's, after what was answered before."""
        if self.batch is not None:
            self.batch.flush()
        super().write_eof()

    def start_tls(self, on_secured: Callable[[], object] | None = None) -> None:
        """As the transport's; what was answered before goes out in plain text."""
        if self.batch is not None:
            self.batch.flush()
        super().start_tls(on_secured)

    def close(self) -> None:
        """As the transport's, after what was answered before; no message comes after it."""
        if self.batch is not None:
            self.batch.flush()
            self.batch.stop()
        super().close()

    def abort(self) -> None:
        """As the transport's; what was answered before goes as far as the kernel takes it."""
        if self.batch is not None:
            self.batch.flush()
        super().abort()

    def get_write_buffer_size(self) -> int:
        """As the transport's; what was answered counts."""
        if self.batch is not None:
            self.batch.flush()
        return super().get_write_buffer_size()

    def is_reading(self) -> bool:
        """As the transport's; what was answered may be what pauses it."""
        if self.batch is not None:
            self.batch.flush()
        return super().is_reading()

    def pause_reading(self) -> None:
        """As the transport's; the rest of what came in the same receive is held back, too."""
        if self.batch is not None:
            self.batch.stop()
        super().pause_reading()

    def resume_reading(self) -> None:
        """As the transport's; first comes what was held back, soon, not within this call."""
        super().resume_reading()
        if self.batch is not None:
            self.go_on_soon()

    def go_on_soon(self) -> None:
        """Have the batch go on at the end of this turn."""
        self.call_later(0, self._go_on)

    def _go_on(self) -> None:
        if self.batch is not None and self.is_reading():
            batch, self.batch = self.batch, None
            batch.data_received(b"")

    def _on_eof(self) -> None:
        """What was held back comes before the end; if that pauses again, the end waits, too."""
        if self.batch is not None:
            self._guard("data_received", b"")
            if not self.is_reading():
                return
        super()._on_eof()

    def _mixed(self, kind: type[Transport]) -> type[Transport]:
        """A batch may go on over TLS, too."""
        return batching(super()._mixed(kind))  # type: ignore[arg-type]

    def lose(self, exc: BaseException | None, cause: str) -> None:
        """As the transport's; a batch ends with its connection."""
        if self.batch is not None:
            self.batch.stop()
        super().lose(exc, cause)


@functools.cache
def batching(transport_type: type[Transport]) -> type[Transport]:
    """The class of transports that is as `transport_type`, for a framing."""
    name = f"Batching{transport_type.__name__}"
    members = {"__slots__": (), "write_through": transport_type.write}
    return type(name, (Batching, transport_type), members)
