"""The benchmarks' arithmetic: a wrong median would make every figure a lie."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """A module of the benchmarks, which are programs and no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


stats = load("stats")
report = load("report")


def test_summary_is_median_and_extremes() -> None:
    summary = stats.summarize([9.0, 1.0, 2.0])
    assert (summary.median, summary.low, summary.high, summary.rounds) == (2.0, 1.0, 9.0, 3)


def test_nothing_measured_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        stats.summarize([])
    with pytest.raises(ValueError, match="nothing was counted"):
        stats.imbalance([0, 0])


def test_ratios_pair_the_rounds() -> None:
    # The second round was slow for both: its ratio must not show it.
    assert stats.ratios([2.0, 20.0], [1.0, 10.0]) == [2.0, 2.0]
    with pytest.raises(ValueError, match="argument 2"):
        stats.ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("counts", "expected"), [((250, 250, 250, 250), 1.0), ((1000, 0, 0, 0), 4.0), ((3, 1), 1.5)]
)
def test_imbalance_is_largest_over_mean(counts: tuple[int, ...], expected: float) -> None:
    assert stats.imbalance(counts) == expected


def test_slope_is_growth_for_one() -> None:
    assert stats.slope((5_000, 100.0), (15_000, 200.0)) == 0.01


@pytest.mark.parametrize(
    ("value", "below", "met"),
    [(1.0, False, True), (1.0, True, False), (0.99, True, True), (1.01, False, False)],
)
def test_a_bar_on_its_limit(value: float, below: bool, met: bool) -> None:
    assert report.Bar("figure", value, 1.0, below=below).met is met


def test_a_missed_bar_says_so() -> None:
    result = report.Result("idle", "crowd", ("server",), [("epolld",)], [report.Bar("r", 2.0, 1.0)])
    assert "NOT MET" in report.markdown([result])
    assert json.loads(report.to_json([result]))["idle"]["bars"][0]["met"] is False
