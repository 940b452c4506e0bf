"""Draws the charts of a result: docs/pictures/benchmark-NAME.png and .svg. Knows no server."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pictures
from report import Result

OURS = "epolld"  # names that begin so are ours and stand out
WIDE = 5.2  # inches for a chart
LINE = {"color": "black", "linestyle": "--", "linewidth": 1.2}  # of a limit


def draw(result: Result) -> None:
    """All charts of one result in one picture, two or three in a row; none if it has none."""
    count = len(result.charts)
    if not count:
        return
    columns = 3 if count == 3 else min(2, count)
    rows = math.ceil(count / columns)
    height = max(map(_height, result.charts))
    bars = [chart for chart in result.charts if chart["kind"] == "bars"]
    wide = 1.0 if columns > 1 else 1.5
    size = (WIDE * columns * wide, rows * height + 0.4)
    with pictures.figure(f"benchmark-{result.name}", rows, columns, size) as axes:
        flat = list(axes.flat) if count > 1 else [axes]
        flat[0].figure.suptitle(result.title, fontsize=13)
        for place, chart in zip(flat, result.charts, strict=False):
            DRAWN[chart["kind"]](place, chart)
            if chart["kind"] == "bars":  # as thick as those beside them
                place.set_ylim(max(len(c["values"]) for c in bars) - 0.4, -0.6)
            if chart["title"]:
                place.set_title(chart["title"], fontsize=11)
        for unused in flat[count:]:
            unused.set_axis_off()


def _height(chart: dict[str, Any]) -> float:
    """Inches."""
    return 1.6 + 0.3 * len(chart["values"]) if chart["kind"] == "bars" else 4.2


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
    axes.grid(axis="y", visible=False)
    whole = max(m + h for m, h in zip(medians, highs, strict=True)) or 1.0
    unit = chart["unit"]
    if limit := chart.get("limit"):
        axes.axvline(limit, **LINE, zorder=3)
        unit += _bar_of(limit)
        whole = max(whole, limit)
    for row, (median, high) in enumerate(zip(medians, highs, strict=True)):
        text = axes.text(median + high, row, f"  {figure(median)}", va="center", fontsize=9)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.3})
    if min(medians) > 0 and max(medians) > 30 * min(medians):
        axes.set_xscale("log")
        axes.set_xlim(min(medians) / 2, whole * 4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        unit += "; logarithmic"
    else:
        axes.set_xlim(0, whole * 1.18)
    axes.set_xlabel(unit)


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


def _groups(axes: Any, chart: dict[str, Any]) -> None:
    """Groups of columns, with the figure on each; a colour and a legend for the parts."""
    groups = chart["values"]
    parts = list(next(iter(groups.values())))
    colours = (pictures.COLOURS[5], *pictures.COLOURS[:5])
    width = 0.8 / len(parts)
    for number, part in enumerate(parts):
        places = [at + (number - (len(parts) - 1) / 2) * width for at in range(len(groups))]
        values = [each[part] for each in groups.values()]
        columns = axes.bar(places, values, width * 0.94, color=colours[number], label=part)
        axes.bar_label(columns, [figure(value) for value in values], fontsize=8, padding=1)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.grid(axis="x", visible=False)
    figures = [value for each in groups.values() for value in each.values()]
    top = max(figures)
    unit = chart["unit"]
    if limit := chart.get("limit"):
        axes.axhline(limit, **LINE)
        unit += _bar_of(limit)
        top = max(top, limit)
    if min(figures) > 0 and top > 30 * min(figures):
        axes.set_yscale("log")
        axes.set_ylim(min(figures) / 2, top * 6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        unit += "; logarithmic"
    else:
        axes.set_ylim(0, (top or 1) * 1.3)
    axes.set_ylabel(unit)
    axes.legend(fontsize=9, loc="upper left", ncols=2 if len(parts) > 2 else 1, framealpha=1)


def _course(axes: Any, chart: dict[str, Any]) -> None:
    """A line over time, and a dotted one at each moment in which something was done."""
    xs, ys = [x for x, _ in chart["values"]], [y for _, y in chart["values"]]
    axes.plot(xs, ys, color=pictures.COLOURS[5], linewidth=1.4)
    for number, moment in enumerate(chart["marks"]):
        label = chart["mark"] if not number else None
        axes.axvline(moment, color="black", linestyle=":", linewidth=1, label=label)
    top = max(ys)
    unit = chart["unit"]
    if limit := chart.get("limit"):
        axes.axhline(limit, **LINE)
        unit += _bar_of(limit)
        top = max(top, limit)
    axes.set_xlim(0, max(xs))
    axes.set_ylim(0, top * 1.2)
    axes.set_xlabel("seconds")
    axes.set_ylabel(unit)
    if chart["marks"]:
        axes.legend(fontsize=9, loc="upper right", framealpha=1)


def _bar_of(limit: float) -> str:
    """How an axis explains the dashed line."""
    return f"\n(dashed: epolld's bar, {figure(limit)})"


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


DRAWN: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "bars": _bars,
    "lines": _lines,
    "groups": _groups,
    "course": _course,
}
