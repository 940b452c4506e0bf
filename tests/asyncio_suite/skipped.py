"""What of CPython's `test.test_asyncio` is not run over epolld, and why.

By the id of a test, or of a class or module for all that is in it. `Only` marks what is there in
some of Python's versions alone. test_asyncio_suite.py looks that each entry names something, and
that nothing else is skipped.
"""

from __future__ import annotations

import sys
from typing import NamedTuple


class Only(NamedTuple):
    """An entry for the Pythons from 3.`first` to 3.`last`."""

    reason: str
    first: int = 11
    last: int = 99


WINDOWS = "of Windows"
SAME = "the same tests as over epoll, for others of Python's selectors"
WAKEUP = (
    "with a mock of what asyncio's own way to handle signals does to the wake-up descriptor, which "
    "stays the worker's: WorkerLoop has a way of its own; see tests/net/test_selector.py"
)
CHILD_WATCHER = Only("CPython skips these for a race of MultiLoopChildWatcher", last=11)
INSIDE = "looks for parts of asyncio's transport that ours does not have"
NOT_A_SUBCLASS = (
    "asks for an instance of asyncio.Transport: ours has its methods, but is none (the other tests "
    "of create_connection and create_unix_connection are run)"
)
SENDFILE = "loop.sendfile() refuses transports that do not offer it, and ours does not"
EINTR = "os.read and os.write begin anew by themselves (PEP 475) and never raise InterruptedError"
HINT = (
    "get_buffer() gets the number of bytes at hand as its hint, not -1, and is called until all of "
    "them are taken"
)

# With all of epolld's loop, whoever's the transports are.
EVERYWHERE: dict[str, str | Only] = {
    "test_windows_events": WINDOWS,
    "test_windows_utils": WINDOWS,
    "test_buffered_proto.BufferedProtocolProactorTests": WINDOWS,
    "test_proactor_events.ProactorEventLoopUnixSockSendfileTests": WINDOWS,
    "test_server.ProactorStartServerTests": WINDOWS,
    "test_sslproto.ProactorStartTLSTests": WINDOWS,
    "test_events.PollEventLoopTests": SAME,
    "test_events.SelectEventLoopTests": SAME,
    "test_sendfile.PollEventLoopTests": SAME,
    "test_sendfile.SelectEventLoopTests": SAME,
    "test_sock_lowlevel.PollEventLoopTests": SAME,
    "test_sock_lowlevel.SelectEventLoopTests": SAME,
    "test_subprocess.SubprocessMultiLoopWatcherTests": CHILD_WATCHER,
    "test_tasks.CTask_CFuture_Tests.test_refleaks_in_task___init__": "for debug builds of Python",
    "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler_install_error": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler_install_error2": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler_install_error3": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_add_signal_handler_setup_error": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_close": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_close_on_finalizing": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_remove_signal_handler": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_remove_signal_handler_2": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_remove_signal_handler_error": WAKEUP,
    "test_unix_events.SelectorEventLoopSignalTests.test_remove_signal_handler_error2": WAKEUP,
}

# With epolld's transports.
OVER_TRANSPORTS: dict[str, str | Only] = {
    "test_events.EPollEventLoopTests.test_create_connection": NOT_A_SUBCLASS,
    "test_events.EPollEventLoopTests.test_create_unix_connection": NOT_A_SUBCLASS,
    "test_sock_lowlevel.EPollEventLoopTests.test_create_connection_sock": NOT_A_SUBCLASS,
    "test_events.EPollEventLoopTests.test_connect_accepted_socket": (
        "waits for ever if the client hangs up while the loop still runs for what made the "
        "transport: ours reads within select(), a turn earlier than asyncio's, so that may be"
    ),
    "test_selector_events.SelectorTransportTests.test_ctor": INSIDE,
    "test_selector_events.SelectorTransportTests.test__add_reader": INSIDE,
    "test_selector_events.SelectorTransportTests.test_connection_lost": INSIDE,
    "test_selector_events.SelectorSocketTransportTests.test_read_ready_tryagain_interrupted": EINTR,
    "test_selector_events.SelectorSocketTransportBufferedProtocolTests."
    "test_read_ready_tryagain_interrupted": EINTR,
    "test_selector_events.SelectorSocketTransportBufferedProtocolTests.test_read_ready": HINT,
    "test_selector_events.SelectorSocketTransportBufferedProtocolTests.test_proto_type_switch": (
        HINT
    ),
    "test_selector_events.SelectorSocketTransportTests.test_write_closing": (
        "counts the writes after the end, which asyncio warns of in its log; ours drops them"
    ),
    "test_selector_events.SelectorSocketTransportTests.test_write_exception": (
        "counts the writes after the end, which asyncio warns of in its log; ours drops them"
    ),
    "test_selector_events.SelectorSocketTransportTests.test_write_ready_closing": (
        "wants connection_lost within the call that sends the last byte; ours comes in the same "
        "turn of the loop, after all events"
    ),
    "test_selector_events.SelectorSocketTransportTests.test_write_ready_no_data": (
        "wants an AssertionError if there is nothing to send; ours may be called once too often"
    ),
    "test_sendfile.EPollEventLoopTests.test_sendfile": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_close_peer_after_receiving": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_close_peer_in_the_middle_of_receiving": (
        SENDFILE
    ),
    "test_sendfile.EPollEventLoopTests.test_sendfile_fallback_close_peer_in_the_middle_of_receiving"
    "": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_force_fallback": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_force_unsupported_native": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_partial": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_pre_and_post_data": SENDFILE,
    "test_sendfile.EPollEventLoopTests.test_sendfile_prevents_bare_write": SENDFILE,
}


def skipped(engine: str) -> dict[str, str]:
    """The reasons by id, for this Python; `engine` is "loop" or "transport"."""
    entries = {**EVERYWHERE, **(OVER_TRANSPORTS if engine == "transport" else {})}
    found = {}
    for id, entry in entries.items():
        only = Only(entry) if isinstance(entry, str) else entry
        if only.first <= sys.version_info.minor <= only.last:
            found[id] = only.reason
    return found


def entry_of(id: str, entries: dict[str, str]) -> str | None:
    """Which entry a test falls under."""
    names = id.split(".")
    for count in range(1, len(names) + 1):
        if (prefix := ".".join(names[:count])) in entries:
            return prefix
    return None
