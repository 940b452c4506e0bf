"""HUP ten times under load: what clients that come and clients that stay notice of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import loads
import progress
import servers
from report import Bar, Result, course_chart

WORKERS, SHORT, LONG = 4, 8, 16
ERRORS = ("refused", "reset", "early_end", "wrong", "timeout", "other")
PATIENT = "  graceful_timeout: 120s\n"  # no connection that stays is ended in the test
HASTY = "  graceful_timeout: 1s\n"  # those that could not move are told goodbye and come again
RELOAD_WITHIN = 15.0  # seconds
APART = 0.5  # seconds between two


def measure(names: Sequence[str], quick: bool) -> Result:
    """Reload again and again; the peers cannot."""
    reloads = 5 if quick else 10
    result = Result(
        name="reload",
        title="Reloads under clients that come and stay",
        about=f"{reloads} reloads under {SHORT} clients that come and go and {LONG} that stay, "
        f"which check every byte, {APART} s apart: what they met.",
        columns=("graceful_timeout", "messages", "goodbye", *ERRORS),
    )
    if "epolld" not in names:
        return result
    for title, settings in (("120s", PATIENT), ("1s", HASTY)):
        progress.show(f"{reloads} reloads with graceful_timeout {title}")
        tally, moments = _reload_under_load(reloads, settings)
        result.raw[title] = {**tally, "reloads": moments}
        result.rows.append((title, *(str(tally[name]) for name in result.columns[1:])))
        errors = sum(tally[name] for name in ERRORS)
        result.charts.append(_course(f"graceful_timeout {title}: {errors} errors", tally, moments))
        if title == "120s":
            errors += tally["goodbye"]
        result.bars.append(Bar(f"errors with graceful_timeout {title}", errors, 0))
    return result


def _course(title: str, tally: dict[str, Any], moments: Sequence[float]) -> dict[str, Any]:
    """The answers a second over time, with the moment of each HUP."""
    every = tally["every"]
    points = [((n + 0.5) * every, count / every) for n, count in enumerate(tally["course"])]
    return course_chart(title, "answers a second", points, moments, "HUP")


def _reload_under_load(reloads: int, settings: str) -> tuple[dict[str, Any], list[float]]:
    """What the clients counted, and the seconds at which they met a HUP."""
    moments = []
    with (
        servers.running("epolld", workers=WORKERS, core=None, settings=settings) as server,
        loads.churning(server.port, SHORT, LONG) as load,
    ):
        seen = len(server.lines)
        time.sleep(APART)
        for _ in range(reloads):
            moments.append(time.monotonic())
            os.kill(server.pid, signal.SIGHUP)
            seen = server.wait_line("reload done", seen, RELOAD_WITHIN)
            time.sleep(APART)
        tally = load.finish()
    return tally, [round(moment - tally["began"], 3) for moment in moments]
