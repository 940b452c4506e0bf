"""Answers of the daemon as text for people. Pure: facts in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Facts = dict[str, Any]

UNKNOWN = "-"

# Of a list of connections: (heading, width); a wider cell pushes the rest of its line aside, for
# the list is printed as it comes.
CONNECTION_COLUMNS = (
    *(("ID", 19), ("PEER", 24), ("SERVICE", 12), ("WORKER", 6), ("GEN", 4), ("STATE", 7)),
    *(("AGE", 7), ("IDLE", 7), ("IN", 8), ("OUT", 8), ("UNSENT", 7)),
)


def span(seconds: float | None) -> str:
    """A time in its two largest units: 3d4h, 5m12s, 0.3s."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2])


def size(number: float | None) -> str:
    """Bytes: 512, 1.5k, 20M."""
    if number is None:
        return UNKNOWN
    for unit in ("", "k", "M", "G"):
        if number < 1024 or unit == "G":
            break
        number /= 1024
    return f"{number:.0f}{unit}" if number >= 10 or not unit else f"{number:.1f}{unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines with columns of equal width; numbers to the right."""
    cells = [list(map(_cell, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    numeric = [
        bool(cells) and all(not c or c[:1].isdigit() or c == UNKNOWN for c in column)
        for column in zip(*cells, strict=True)
    ] or [False] * len(head)
    for line in (list(head), *cells):
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _cell(value: object) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else str(value)


def status(facts: Facts) -> Iterator[str]:
    """How it stands."""
    yield f"epolld {facts['version']} (pid {facts['pid']}), up {span(facts['uptime'])}"
    leaving = facts["generations_leaving"]
    yield (
        f"{facts['state']}: generation {facts['generation']}, {facts['workers_ready']} of "
        f"{facts['workers_wanted']} workers, {facts['connections']:,} connections"
        + (f"; {leaving} older generations are leaving" if leaving else "")
    )
    yield f"configuration: {facts['config']}"
    last = facts["last_reload"]
    if last:
        yield f"last reload: {span(last['seconds_ago'])} ago, {last['message']}"


def workers(rows: list[Facts]) -> Iterator[str]:
    """Every worker."""
    head = ("WORKER", "PID", "GEN", "STATE", "AGE", "SILENT", "CPU", "MEMORY", "CONNS", "ACCEPTED")
    yield from table(
        head,
        (
            (
                row["worker"],
                str(row["pid"]),
                row["generation"],
                row["state"] + ("" if row["accepting"] else " (not accepting)"),
                span(row["age"]),
                span(row["silent"]),
                span(row.get("cpu")),
                size(row.get("memory")),
                row["connections"],
                row["accepted"],
            )
            for row in rows
        ),
    )


def services(rows: list[Facts]) -> Iterator[str]:
    """Every address of every service."""
    yield from table(
        ("SERVICE", "PROTOCOL", "ADDRESS", "WAITING", "BACKLOG", "CONNS", "ACCEPTED", "REFUSED"),
        (
            (
                *(row["service"], row["protocol"]),
                *(each["address"], each["waiting"], each["backlog"]),
                # Of the whole service: told once.
                *(
                    (row["connections"], row["accepted"], sum(row["refused"].values()))
                    if each is row["listeners"][0]
                    else ("", "", "")
                ),
            )
            for row in rows
            for each in row["listeners"]
        ),
    )


def connections_head() -> str:
    """The heading of the list."""
    return _line([name for name, _ in CONNECTION_COLUMNS])


def connection(row: Facts) -> str:
    """One connection."""
    return _line(
        [
            *(row["id"], row["peer"], row["service"], row["worker"], row["generation"]),
            *(row["state"], span(row["age"]), span(row["idle"])),
            *(size(row["bytes_in"]), size(row["bytes_out"]), size(row["unsent"])),
        ]
    )


def _line(cells: Sequence[object]) -> str:
    padded = (
        f"{cell!s:<{width}}" for cell, (_, width) in zip(cells, CONNECTION_COLUMNS, strict=True)
    )
    return " ".join(padded).rstrip()


def missing(rows: list[Facts]) -> Iterator[str]:
    """The workers that did not answer."""
    for row in rows:
        yield f"worker {row['worker']} (pid {row['pid']}): {row['reason']}"


def change(facts: Facts) -> Iterator[str]:
    """What a reload or an upgrade has brought."""
    yield from facts["changes"]
    yield from facts["warnings"]
    yield f"generation {facts['generation']}, {facts['workers']} workers, epolld {facts['version']}"
