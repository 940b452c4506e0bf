"""Draws a soak as SVG: four courses over time, with a tick for each thing that was done. Needs
nothing but text, so that CI draws it, too."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from record import Sample

WIDE, HIGH = 900, 150  # of one panel
LEFT, TOP, GAP = 80, 30, 50
COLOURS = {"reload": "#0072b2", "kill": "#d55e00", "upgrade": "#009e73"}
OTHER = "#bbbbbb"
MIB = 1 << 20


def draw(samples: Sequence[Sample], marks: Sequence[tuple[float, str]], title: str) -> str:
    """The whole picture."""
    begin = samples[0].time
    end = max(samples[-1].time, begin + 1)
    panels = [
        ("live connections", [s.connections for s in samples]),
        ("memory of all workers, MiB", [s.worker_memory / MIB for s in samples]),
        ("descriptors of all processes",
         [s.worker_descriptors + s.master_descriptors for s in samples]),
        ("lag of the latest loop, ms", [s.lag * 1000 for s in samples]),
    ]  # fmt: skip
    height = TOP * 2 + len(panels) * (HIGH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDE + 20}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]

    def across(moment: float) -> float:
        return LEFT + WIDE * (moment - begin) / (end - begin)

    for place, (name, values) in enumerate(panels):
        top = TOP + 15 + place * (HIGH + GAP)
        most = max(values) * 1.1 or 1
        parts.append(f'<text x="{LEFT}" y="{top - 4}">{name}</text>')
        for moment, what in marks:
            if begin <= moment <= end:
                x, colour = across(moment), COLOURS.get(what, OTHER)
                parts.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + HIGH}" '
                    f'stroke="{colour}" stroke-opacity="0.35"/>'
                )
        for share in (0, 0.5, 1):
            y = top + HIGH * (1 - share)
            parts.append(
                f'<line x1="{LEFT}" x2="{LEFT + WIDE}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
                f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{most * share:.4g}</text>'
            )
        points = " ".join(
            f"{across(sample.time):.1f},{top + HIGH * (1 - value / most):.1f}"
            for sample, value in zip(samples, values, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="black"/>')
    foot = height - 20
    parts.append(f'<text x="{LEFT}" y="{foot}">0 s</text>')
    parts.append(f'<text x="{LEFT + WIDE}" y="{foot}" text-anchor="end">{end - begin:.0f} s</text>')
    for place, (what, colour) in enumerate({**COLOURS, "other": OTHER}.items()):
        x = LEFT + 200 + place * 110
        parts.append(f'<rect x="{x}" y="{foot - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{foot}">{what}</text>')
    return "\n".join([*parts, "</svg>", ""])
