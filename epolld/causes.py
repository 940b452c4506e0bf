"""Why a connection ended, and why one was not served: the words for it, all of them.

A cause is a short word that the log, the access log and the metrics share. The set is fixed, so
that the scoreboard has a counter for each; a word that is not here is counted as OTHER. To add
one, add it at the end of its tuple: the order is the order of the counters. A leaf.
"""

from __future__ import annotations

OTHER = "other"

# Ends of connections that were served: `transport.lose(exc, cause)`.
ENDS = (
    OTHER,
    "eof",  # the peer had sent all, and so had we
    "closed",  # the protocol called close()
    "aborted",  # the protocol called abort()
    "reset",  # the peer or the network broke it off
    "error",  # any other error of the operating system
    "callback_error",  # user code let an exception through
    "idle_timeout",
    "first_byte_timeout",
    "message_timeout",
    "write_timeout",
    "handshake_timeout",
    "proxy_timeout",
    "max_age",
    "drained",  # ended by a worker that leaves
    "write_buffer",  # more waited to be sent than the service allows
    "buffered_bytes",  # all connections together held more than the worker allows
    "too_long",  # a message longer than the framing allows
    "protocol_error",  # what the peer sent makes no sense
    "killed",  # by an operator: epolldctl kill
    "truncated",  # TLS: the connection ended without the peer's close_notify
    "tls_handshake",  # start_tls() failed
    "tls_pending",  # too many handshakes were under way
)

# Connections that were accepted and not served, or not even accepted: `service.refuse(cause)`.
REFUSALS = (
    OTHER,
    "full",  # workers.max_connections
    "denied",  # by the access rules
    "client_connections",  # limits of one client
    "client_rate",
    "service_connections",  # limit of the service
    "overload",
    "tls_handshake",
    "tls_pending",
    "proxy_header",
    "no_protocol",  # the factory raised
    "handshake_timeout",
    # In the middle of a TLS handshake, before its protocol heard of it:
    "drained",
    "idle_timeout",
    "max_age",
    "killed",
)

# Why a worker had to be replaced.
RESTARTS = (
    OTHER,
    "exit",  # it left by itself
    "signal",  # it crashed, or somebody killed it
    "stuck",  # workers.stuck_timeout
    "killed",  # it did not do in time what it was told
    "boot_failed",
    "recycled",  # workers.recycle_age, recycle_connections, recycle_memory
)
