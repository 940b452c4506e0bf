"""`epolldctl top`: the workers on a live screen. `rates` and `rows` are pure; `show` draws."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from epolld.console import tables
from epolld.console.conversation import ControlError, ExitCode

if TYPE_CHECKING:
    from rich.table import Table

Facts = dict[str, Any]

# Counters of which the rate is shown: what a sample calls them.
COUNTED = ("cpu", "accepted", "bytes_in", "bytes_out")

HEAD = (
    *("WORKER", "PID", "GEN", "STATE", "CPU %", "MEMORY", "CONNS", "ACCEPTS/S"),
    *("IN/S", "OUT/S", "LAG"),
)


def rates(before: Facts | None, now: Facts) -> dict[int, dict[str, float]]:
    """By process, how much each counter grows in a second; empty for who was not there before."""
    if before is None:
        return {}
    seconds = now["time"] - before["time"]
    known = {each["pid"]: each for each in before["workers"]}
    found: dict[int, dict[str, float]] = {}
    for each in now["workers"]:
        then = known.get(each["pid"])
        if then is not None and seconds > 0:
            found[each["pid"]] = {
                name: (each[name] - then[name]) / seconds
                for name in COUNTED
                if each.get(name) is not None and then.get(name) is not None
            }
    return found


def rows(before: Facts | None, now: Facts) -> list[tuple[str, ...]]:
    """The cells of each worker."""
    speed = rates(before, now)
    return [_row(each, speed.get(each["pid"], {})) for each in now["workers"]]


def _row(facts: Facts, rate: dict[str, float]) -> tuple[str, ...]:
    def number(name: str, factor: float = 1.0) -> str:
        return f"{rate[name] * factor:,.0f}" if name in rate else tables.UNKNOWN

    def amount(name: str) -> str:
        return tables.size(rate[name]) if name in rate else tables.UNKNOWN

    lag = facts.get("lag")
    return (
        str(facts["worker"]),
        str(facts["pid"]),
        str(facts["generation"]),
        facts["state"],
        number("cpu", 100),
        tables.size(facts.get("memory")),
        f"{facts['connections']:,}",
        number("accepted"),
        amount("bytes_in"),
        amount("bytes_out"),
        tables.UNKNOWN if lag is None else f"{lag * 1000:,.1f}ms",
    )


def headline(now: Facts) -> str:
    """The daemon as a whole, above the table."""
    return "\n".join(tables.status(now["status"]))


def show(samples: Iterable[Facts]) -> None:
    """Draw each sample until there is none, or until Ctrl-C."""
    try:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        raise ControlError(
            ExitCode.FAILED,
            "top needs rich, which is not installed; "
            f"run: {sys.executable} -m pip install rich; `watch` does without",
        ) from None
    console = Console()
    before: Facts | None = None
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        for now in samples:
            live.update(Group(Text(headline(now)), _table(rows(before, now))), refresh=True)
            before = now


def _table(cells: list[tuple[str, ...]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table
