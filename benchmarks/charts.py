"""Draws the charts of a result: docs/pictures/benchmark-NAME.png and .svg. Knows no server."""

from __future__ import annotations

import math
from typing import Any

import pictures
from report import Result

OURS = "epolld"  # names that begin so are ours and stand out
WIDE = 5.2  # inches for a chart


def draw(result: Result) -> None:
    """All charts of one result in one picture, two or three in a row; none if it has none."""
    count = len(result.charts)
    if not count:
        return
    columns = 3 if count == 3 else min(2, count)
    rows = math.ceil(count / columns)
    height = max(
        1.6 + 0.3 * len(chart["values"]) if chart["kind"] == "bars" else 4.2
        for chart in result.charts
    )
    size = (WIDE * (columns if columns > 1 else 1.5), rows * height)
    with pictures.figure(f"benchmark-{result.name}", rows, columns, size) as axes:
        flat = list(axes.flat) if count > 1 else [axes]
        for place, chart in zip(flat, result.charts, strict=False):
            (_bars if chart["kind"] == "bars" else _lines)(place, chart)
            place.set_title(chart["title"], fontsize=11)
        for unused in flat[count:]:
            unused.set_axis_off()


def _bars(axes: Any, chart: dict[str, Any]) -> None:
    """Horizontal bars, the first on top, with the spread as a whisker and the figure beside."""
    names = list(chart["values"])
    medians = [chart["values"][name][0] for name in names]
    lows, highs = (
        [abs(chart["values"][n][i] - chart["values"][n][0]) for n in names] for i in (1, 2)
    )
    colours = [
        pictures.COLOURS[5] if name.startswith(OURS) else pictures.COLOURS[0] for name in names
    ]
    axes.barh(
        names, medians, xerr=[lows, highs], color=colours, ecolor="black", capsize=2, height=0.7
    )
    axes.invert_yaxis()
    axes.set_xlabel(chart["unit"])
    axes.grid(axis="y", visible=False)
    whole = max(m + h for m, h in zip(medians, highs, strict=True))
    for row, (median, high) in enumerate(zip(medians, highs, strict=True)):
        axes.text(median + high, row, f"  {figure(median)}", va="center", fontsize=9)
    if min(medians) > 0 and max(medians) > 30 * min(medians):
        axes.set_xscale("log")
        axes.set_xlim(min(medians) / 2, whole * 3)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set_xlabel(f"{chart['unit']} (logarithmic)")
    else:
        axes.set_xlim(0, whole * 1.12)


def _lines(axes: Any, chart: dict[str, Any]) -> None:
    """A line each, ours in the colour of our bars and thicker; the legend beside."""
    colours = (pictures.COLOURS[5], *pictures.COLOURS[:5], *pictures.COLOURS[6:])
    for number, (name, points) in enumerate(chart["values"].items()):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        ours = name.startswith(OURS)
        axes.plot(
            xs,
            ys,
            marker=pictures.MARKERS[number % len(pictures.MARKERS)],
            color=colours[number % len(colours)],
            linestyle="--" if number >= len(colours) else "-",
            linewidth=2.4 if ours else 1.3,
            label=name,
            zorder=3 if ours else 2,
        )
    _scale(axes, chart)
    axes.set_xlabel(chart["x_unit"])
    axes.set_ylabel(chart["unit"])
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _scale(axes: Any, chart: dict[str, Any]) -> None:
    """Logarithmic where the figures span more than a factor of 30; from zero elsewhere."""
    points = [point for line in chart["values"].values() for point in line]
    xs, ys = {x for x, _ in points}, [y for _, y in points]
    if max(xs) > 30 * max(1, min(xs)):
        axes.set_xscale("symlog" if 0 in xs else "log", **({"linthresh": 500} if 0 in xs else {}))
    axes.set_xticks(sorted(xs), [f"{x:,g}" for x in sorted(xs)])
    axes.minorticks_off()
    if min(ys) > 0 and max(ys) > 30 * min(ys):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    else:
        axes.set_ylim(0, max(ys) * 1.1)


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
