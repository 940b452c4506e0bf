import socket
from collections.abc import Iterable
from typing import Any

from epolld.net.loop import EventLoop
from epolld.net.transport import Transport

def accept(listener: socket.socket, /) -> tuple[int, Any]: ...
def bind(
    compiled: type[Transport], transport: type[Transport], loop: type[EventLoop], nothing: bytes, /
) -> None: ...
def settle_all(transports: Iterable[Transport], /) -> None: ...
