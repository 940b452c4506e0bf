"""HUP ten times under load: what clients that come and clients that stay notice of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import loads
import servers
from report import Bar, Result

WORKERS, SHORT, LONG = 4, 8, 16
ERRORS = ("refused", "reset", "early_end", "wrong", "timeout", "other")
PATIENT = "  graceful_timeout: 120s\n"  # no connection that stays is ended in the test
HASTY = "  graceful_timeout: 1s\n"  # those that stay are told goodbye and come again
RELOAD_WITHIN = 15.0  # seconds


def measure(names: Sequence[str], quick: bool) -> Result:
    """Reload again and again; the peers cannot."""
    reloads = 5 if quick else 10
    result = Result(
        name="reload",
        title="Reloads under clients that come and stay",
        about=f"{reloads} reloads under {SHORT} clients that come and go and {LONG} that stay, "
        "which check every byte: what they met.",
        columns=("graceful_timeout", "messages", "goodbye", *ERRORS),
    )
    if "epolld" not in names:
        return result
    for title, settings in (("120s", PATIENT), ("1s", HASTY)):
        tally = _reload_under_load(reloads, settings)
        result.raw[title] = tally
        result.rows.append((title, *(str(tally[name]) for name in result.columns[1:])))
        errors = sum(tally[name] for name in ERRORS)
        if title == "120s":
            errors += tally["goodbye"]
        result.bars.append(Bar(f"errors with graceful_timeout {title}", errors, 0))
    return result


def _reload_under_load(reloads: int, settings: str) -> dict[str, int]:
    """What the clients counted."""
    with (
        servers.running("epolld", workers=WORKERS, core=None, settings=settings) as server,
        loads.churning(server.port, SHORT, LONG) as load,
    ):
        seen = len(server.lines)
        for _ in range(reloads):
            os.kill(server.pid, signal.SIGHUP)
            seen = server.wait_line("reload done", seen, RELOAD_WITHIN)
        return load.finish()
