"""Results as data, as Markdown and as JSON. Knows no server and no load."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that must not be above its limit (`below`: must be under it)."""

    what: str
    value: float
    limit: float
    unit: str = ""
    below: bool = False

    @property
    def met(self) -> bool:
        return self.value < self.limit if self.below else self.value <= self.limit

    def __str__(self) -> str:
        sign = "<" if self.below else "≤"
        unit = f" {self.unit}" if self.unit else ""
        verdict = "met" if self.met else "**NOT MET**"
        return f"{self.what}: {self.value:,.3g}{unit} (bar {sign} {self.limit:g}{unit}): {verdict}"


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
    facts: dict[str, Any] = field(default_factory=dict)  # of the machine and the day


def machine() -> dict[str, Any]:
    """The facts that a figure depends on; no names of hosts or folders."""
    return {
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def markdown(results: Sequence[Result]) -> str:
    """All results as a page."""
    return "\n\n".join(["# Results", *map(section, results)]) + "\n"


def section(result: Result) -> str:
    """One result as a part of the page."""
    parts = [
        f"## {result.name}: {result.title}",
        ", ".join(f"{key} {value}" for key, value in result.facts.items()),
        _table(result.columns, result.rows) if result.rows else "",
        "\n".join(result.notes),
        "\n".join(f"* {bar}" for bar in result.bars),
    ]
    return "\n\n".join(part for part in parts if part)


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
