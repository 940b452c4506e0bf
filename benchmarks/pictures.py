"""How all pictures look, and where they go: docs/pictures/NAME.png and NAME.svg."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs/pictures"
# Okabe and Ito: told apart by everybody, with each a marker for who prints without colour.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "v", "D", "*", "x", "+")
INSTALL = "matplotlib is missing: scripts/bench installs it, and so does pip install -e .[bench]"


@contextlib.contextmanager
def figure(name: str, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """The axes of a new picture, one or an array of them; written on leaving."""
    pyplot = import_pyplot()
    drawing, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained")
    for each in drawing.axes:
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    yield axes
    FOLDER.mkdir(exist_ok=True)
    # No date and stable ids: the same figures make the same file.
    drawing.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    drawing.savefig(FOLDER / f"{name}.png", dpi=110)
    pyplot.close(drawing)


def import_pyplot() -> Any:
    """matplotlib, which draws to files only; ends the program with the remedy if it is missing."""
    try:
        import matplotlib
    except ImportError:
        sys.exit(INSTALL)
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "epolld"})
    return pyplot
