"""The transport that serves: in part in C, where that could be built, else as transport.py has it.

`_speedups.c` is compiled when epolld is installed, if there are a C compiler and Python's headers;
without, all is as it is with, but slower. EPOLLD_NO_EXTENSIONS=1 in the environment leaves it out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from epolld.net import descriptor
from epolld.net.loop import EventLoop
from epolld.net.transport import Transport, settle_all
from epolld.net.travel import NOTHING


class CompiledTransport(Transport):
    """A transport whose `on_ready` and `write` are in C."""

    __slots__ = ()


fastest_transport: type[Transport] = Transport
fastest_settle_all: Callable[[Iterable[Transport]], object] = settle_all
fastest_accept: Callable[[socket.socket], tuple[int, Any]] = descriptor.accept

if not os.environ.get("EPOLLD_NO_EXTENSIONS"):
    try:
        from epolld.net import _speedups
    except ImportError:
        pass  # it was not built
    else:
        _speedups.bind(CompiledTransport, Transport, EventLoop, NOTHING)
        fastest_transport = CompiledTransport
        fastest_settle_all = _speedups.settle_all
        fastest_accept = _speedups.accept
