"""Results as data, as Markdown and as JSON. Knows no server and no load."""

from __future__ import annotations

import os
import platform
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


def machine() -> dict[str, Any]:
    """The facts that a figure depends on; no names of hosts or folders."""
    return {
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "processor": _processor(),
    }


def markdown(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """All results as a page."""
    parts = ["# Results", ", ".join(f"{key} {value}" for key, value in facts.items())]
    for result in results:
        parts += [f"## {result.name}: {result.title}", _table(result.columns, result.rows)]
        parts += ["\n".join(f"* {bar}" for bar in result.bars)] if result.bars else []
    return "\n\n".join(parts) + "\n"


def as_json(results: Sequence[Result], facts: dict[str, Any]) -> dict[str, Any]:
    """All results as plain data, with every round."""
    return {
        "machine": facts,
        "results": {
            result.name: {
                "title": result.title,
                "bars": [{**asdict(bar), "met": bar.met} for bar in result.bars],
                "raw": result.raw,
            }
            for result in results
        },
    }


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
