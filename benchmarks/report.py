"""Results as data, as Markdown and as JSON. Knows no server and no load."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NARROW = 0.04  # whole runs of one and the same differ by this share, where a bar is a ratio


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that must not be above its limit (`below`: must be under it)."""

    what: str
    value: float
    limit: float
    unit: str = ""
    below: bool = False
    spread: str = ""  # of the rounds, in words
    detail: bool = False  # in the overview only if it is missed

    @property
    def met(self) -> bool:
        return self.value < self.limit if self.below else self.value <= self.limit

    @property
    def figure(self) -> str:
        """The value with its unit; figures of four digits and more are whole."""
        text = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.3g}"
        return f"{text} {self.unit}".strip()

    @property
    def bound(self) -> str:
        return f"{'<' if self.below else '≤'} {self.limit:,g} {self.unit}".strip()

    @property
    def narrow(self) -> bool:
        """Whether another run may well say the opposite."""
        return self.unit == "times" and abs(self.value - self.limit) <= NARROW * self.limit

    @property
    def verdict(self) -> str:
        return ("met" if self.met else "**NOT MET**") + (", narrowly" if self.narrow else "")

    def __str__(self) -> str:
        spread = f"; {self.spread}" if self.spread else ""
        return f"{self.what}: {self.figure} (bar {self.bound}{spread}): {self.verdict}"


@dataclass(slots=True)
class Result:
    """What one measure found: a table for people, raw rounds for programs, bars for both."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # below the table
    about: str = ""  # what it is about, above the table
    charts: list[dict[str, Any]] = field(default_factory=list)  # see bars_chart and its neighbours
    pictures: list[str] = field(default_factory=list)  # drawn by others, in docs/pictures
    facts: dict[str, Any] = field(default_factory=dict)  # of the machine and the day


def machine(quick: bool, seconds: float, busy: float) -> dict[str, Any]:
    """The facts that a figure depends on; no names of hosts or folders.

    `busy` is the load average before: what others did on the machine disturbs every figure.
    """
    return {
        "run": f"{'quick' if quick else 'whole'}, {seconds:.0f} s",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load average before": round(busy, 1),
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
    }


Spread = tuple[float, float, float]  # median, lowest, highest


def bars_chart(
    title: str, unit: str, values: Mapping[str, Spread], limit: float | None = None
) -> dict[str, Any]:
    """One bar for each: its median, and the lowest and highest as a whisker; `limit` as a line."""
    return {"kind": "bars", "title": title, "unit": unit, "values": dict(values), "limit": limit}


def lines_chart(
    title: str, unit: str, x_unit: str, lines: Mapping[str, Mapping[float, float]]
) -> dict[str, Any]:
    """One line for each, from pairs of x and y."""
    pairs = {name: [[x, y] for x, y in line.items()] for name, line in lines.items()}
    return {"kind": "lines", "title": title, "unit": unit, "x_unit": x_unit, "values": pairs}


def groups_chart(
    title: str, unit: str, groups: Mapping[str, Mapping[str, float]], limit: float | None = None
) -> dict[str, Any]:
    """A few columns beside each other for each: the same parts in every group."""
    values = {name: dict(parts) for name, parts in groups.items()}
    return {"kind": "groups", "title": title, "unit": unit, "values": values, "limit": limit}


def course_chart(
    title: str,
    unit: str,
    points: Sequence[tuple[float, float]],
    marks: Sequence[float] = (),
    mark: str = "",
    limit: float | None = None,
) -> dict[str, Any]:
    """A figure over the seconds of a run, and the moments at which something was done to it."""
    return {
        "kind": "course",
        "title": title,
        "unit": unit,
        "values": [list(point) for point in points],
        "marks": list(marks),
        "mark": mark,
        "limit": limit,
    }


def markdown(results: Sequence[Result], intro: str) -> str:
    """All results as a page."""
    return "\n\n".join([intro.strip(), _bars(results), *map(section, results)]) + "\n"


def section(result: Result) -> str:
    """One result as a part of the page."""
    name = f"benchmark-{result.name}"
    parts = [
        f"## {result.title}",
        result.about.strip(),
        f"![{result.title}](pictures/{name}.svg)" if result.charts else "",
        *(f"![{result.title}, {each}](pictures/{each}.svg)" for each in result.pictures),
        _table(result.columns, result.rows) if result.rows else "",
        "\n".join(result.notes),
        "\n".join(f"* {bar}" for bar in result.bars),
        f"<sub>`scripts/bench --only {result.name}`: {_facts(result)}</sub>"
        if result.facts
        else "",
    ]
    return "\n\n".join(part for part in parts if part)


def summary(result: Result) -> str:
    """One result for the terminal."""
    wide = [max(map(len, column)) for column in zip(result.columns, *result.rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip()
        for row in (result.columns, *result.rows)
    ]
    return "\n".join(
        [f"== {result.name}: {result.title}", *lines, *result.notes, *map(str, result.bars)]
    )


def _bars(results: Sequence[Result]) -> str:
    """What epolld promises, all at once: first how many are met, and which are not."""
    every = [bar for result in results for bar in result.bars]
    if not every:
        return ""
    missed = [bar for bar in every if not bar.met]
    told = f"{len(every)} bars, of which {len(every) - len(missed)} are met"
    told += f" and {len(missed)} are **not**." if missed else "."
    told += (
        f" *Narrowly*: by less than {NARROW:.0%}, which is what whole runs of one and the same "
        "differ by; another run may say the opposite."
    )
    rows = []
    for result in results:
        link = f"[{result.title}](#{anchor(result.title)})"
        shown = [bar for bar in result.bars if not (bar.detail and bar.met)]
        rows += [(link, bar.what, bar.figure, bar.spread, bar.bound, bar.verdict) for bar in shown]
        if more := len(result.bars) - len(shown):
            rows.append((link, f"{more} more, told below", "", "", "", "met"))
    columns = ("measure", "what", "measured", "of the rounds", "bar", "")
    return "\n\n".join(("## The bars", told, _table(columns, rows)))


def anchor(title: str) -> str:
    """The fragment of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _facts(result: Result) -> str:
    return ", ".join(f"{key} {value}" for key, value in result.facts.items())


def to_json(results: Sequence[Result]) -> str:
    """All results as data, with every round."""
    data = {
        result.name: {
            **{key: value for key, value in asdict(result).items() if key != "name"},
            "bars": [{**asdict(bar), "met": bar.met} for bar in result.bars],
        }
        for result in results
    }
    return json.dumps(data, indent=1) + "\n"


def from_json(text: str) -> list[Result]:
    """What `to_json` wrote."""
    results = []
    for name, data in json.loads(text).items():
        bars = [{key: bar[key] for key in bar if key != "met"} for bar in data.pop("bars")]
        results.append(Result(name=name, bars=[Bar(**bar) for bar in bars], **data))
    return results


def merge(old: Sequence[Result], new: Sequence[Result], order: Sequence[str]) -> list[Result]:
    """The newest result of each measure, in this order; measures not in it are dropped."""
    found = {result.name: result for result in (*old, *new)}
    return [found[name] for name in order if name in found]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
