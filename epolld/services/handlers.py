"""Which runtime a handler needs, told from what its name stands for. Imports none of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

Runtime = Literal["native", "asyncio", "coroutines", "threads"]

# How many arguments a runtime passes by position, before the options: (reader, writer) and
# (request, client_address, server).
PASSED = {"native": 0, "asyncio": 0, "coroutines": 2, "threads": 3}

# What a transport calls; a class need not inherit from ours or asyncio's if it has these.
CALLBACKS = (
    "connection_made",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
)
BUFFERED_CALLBACKS = ("get_buffer", "buffer_updated")  # in place of data_received

HOOKS = ("start", "draining", "stop")  # of an application

COROUTINE = 0x80  # inspect.CO_COROUTINE, in the flags of a function's code


def runtime_of(handler: Callable[..., Any]) -> Runtime:
    """What `handler` needs to run.

    A function that is not a coroutine says nothing about what it returns: that counts as native.
    """
    if isinstance(handler, type):
        if _derives(handler, "asyncio.protocols", "BaseProtocol"):
            return "asyncio"
        if _derives(handler, "socketserver", "BaseRequestHandler"):
            return "threads"
        return "native"
    return "coroutines" if is_coroutine_function(handler) else "native"


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine; as inspect's, which is a large module."""
    called: Any = getattr(function, "func", function)  # what a functools.partial is of
    if not hasattr(called, "__code__"):  # a method, or an object that can be called
        called = getattr(called, "__func__", None) or type(called).__call__
    return bool(getattr(getattr(called, "__code__", None), "co_flags", 0) & COROUTINE)


def lacking(handler: type, runtime: Runtime) -> str:
    """What a class lacks to be run so, as the end of a sentence; "" if nothing."""
    if runtime == "threads":
        if not _derives(handler, "socketserver", "BaseRequestHandler"):
            return "is no blocking handler; derive it from socketserver.BaseRequestHandler"
        return ""
    if runtime == "coroutines":
        return "" if hasattr(handler, "__await__") else "is no coroutine function, but a class"
    needed = list(CALLBACKS)
    if runtime == "asyncio" and _derives(handler, "asyncio.protocols", "BufferedProtocol"):
        needed[1:2] = BUFFERED_CALLBACKS
    missing = [callback for callback in needed if not hasattr(handler, callback)]
    if missing:
        return (
            f"is no stream protocol: it lacks {', '.join(missing)}; "
            "derive it from epolld.Protocol or asyncio.Protocol"
        )
    return ""


def tells_of_messages(handler: Callable[..., Any], runtime: Runtime) -> bool:
    """Whether what `handler` makes says where its messages are, as `message_timeout` needs it.

    A function says nothing about what it returns: that counts as yes.
    """
    if runtime in ("coroutines", "threads"):
        return False
    made = getattr(handler, "func", handler)  # what a functools.partial is of: one with options
    return not isinstance(made, type) or hasattr(made, "message_under_way")


def lacking_application(found: type) -> str:
    """What a class lacks to be an application, as the end of a sentence; "" if nothing."""
    if hasattr(found, "start") or hasattr(found, "stop"):  # `draining` a protocol has, too
        return ""
    return "is no application: it has neither start nor stop; derive it from epolld.Application"


def _derives(handler: type, module: str, name: str) -> bool:
    """Whether it is a subclass of what `module` defines; if nobody has imported it, it is not."""
    base = getattr(sys.modules.get(module), name, None)
    return base is not None and issubclass(handler, base)
