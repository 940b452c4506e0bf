"""The benchmarks' arithmetic: a wrong median would make every figure a lie."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
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
progress = load("progress")
processes = load("processes")


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
    assert "NOT MET" in report.markdown([result], "")
    assert json.loads(report.to_json([result]))["idle"]["bars"][0]["met"] is False


def test_the_overview_lists_what_is_missed_and_sums_up_what_is_met() -> None:
    bars = [report.Bar(f"bar {number}", number, 6.5) for number in range(8)]
    page = report.markdown(
        [report.Result("pause", "The pause, & more", ("a",), bars=bars)], "Intro"
    )
    overview = page.partition("## The pause")[0]
    assert page.startswith("Intro\n\n## The bars")
    assert "| [The pause, & more](#the-pause--more) | bar 7 | 7 | ≤ 6.5 | **NOT MET** |" in overview
    assert "7 bars, told below" in overview
    assert "bar 6:" not in overview


def test_results_survive_being_written_and_the_newest_counts() -> None:
    chart = report.bars_chart("64 bytes", "µs", {"epolld": (2.0, 1.0, 3.0)})
    bars = [report.Bar("r", 1.0, 1.0, below=True)]
    old = report.Result("a", "A", ("x",), [("1",)], bars, charts=[chart], about="why")
    (again,) = report.from_json(report.to_json([old]))
    assert report.to_json([again]) == report.to_json([old])
    new = report.Result("b", "B", ("x",))
    assert [r.name for r in report.merge([again], [new], ["b", "a"])] == ["b", "a"]
    assert report.merge([again], [report.Result("a", "newer", ("x",))], ["a"])[0].title == "newer"
    assert report.merge([again], [], ["b"]) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_bar_moves_within_a_measure_and_waits_for_its_end() -> None:
    stream = Terminal()
    bar = progress.Progress({"first": 10.0, "second": 30.0}, stream)
    bar.begin("first")
    began = time.monotonic()
    assert bar.fraction(began + 5) == pytest.approx(5 / 40, abs=0.01)
    assert bar.fraction(began + 500) == 10 / 40, "a slow measure is not over because its time is"
    bar.begin("second")
    bar.show("round 1")
    assert " 25%  0:30 left  second: round 1" in stream.getvalue()


def test_without_a_terminal_it_says_what_begins_and_no_more() -> None:
    stream = io.StringIO()
    bar = progress.Progress({"first": 10.0}, stream)
    bar.begin("first")
    bar.show("round 1")
    bar.clear()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("first: begins\n")


def test_cpu_time_counts_what_a_child_took_before_it_ended() -> None:
    def tick() -> float:
        return processes.cpu_time([os.getpid()]).ticked / 1e9

    before = tick()
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < .1: 0"])
    assert 0.08 <= tick() - before < 1


def test_every_server_of_the_tables_has_its_program() -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        servers = load("servers")
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert set(servers.RIVALS) | set(servers.ONE_EACH) < set(servers.EVERYONE)
    names = {path.stem.removeprefix("upper_") for path in (BENCHMARKS / "peers").iterdir()}
    assert set(servers.EVERYONE) - {"epolld"} <= names


def test_a_crowd_that_broke_says_what_broke_and_is_judged() -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        crowd, told = load("crowd"), load("measures/crowd")
    finally:
        sys.path.remove(str(BENCHMARKS))
    result = told.summarize(
        {"1000": dataclasses.asdict(crowd.Crowd(1000, 8, 1, "serving: 3 reset"))}
    )
    assert result.rows[0][0] == "1,000"
    assert result.rows[0][-1] == "serving: 3 reset"
    assert [(bar.value, bar.met) for bar in result.bars] == [(1000, False)]
