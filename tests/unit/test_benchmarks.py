"""The benchmarks' arithmetic: a wrong median would make every figure a lie."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Modules of the benchmarks import each other by their bare names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield
    finally:
        sys.path.remove(str(BENCHMARKS))


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
    bars = [report.Bar(f"bar {number}", number, 6.5, detail=True) for number in range(8)]
    bars.append(report.Bar("headline", 1, 2, "ms", spread="0.5 to 1.5, 3 rounds"))
    page = report.markdown(
        [report.Result("pause", "The pause, & more", ("a",), bars=bars)], "Intro"
    )
    overview = page.partition("## The pause")[0]
    assert page.startswith("Intro\n\n## The bars")
    link = "| [The pause, & more](#the-pause--more) |"
    assert "9 bars, of which 8 are met and 1 are **not**." in overview
    assert f"{link} bar 7 | 7 |  | ≤ 6.5 | **NOT MET** |" in overview
    assert f"{link} headline | 1 ms | 0.5 to 1.5, 3 rounds | ≤ 2 ms | met |" in overview
    assert "7 more, told below" in overview
    assert "bar 6 |" not in overview


@pytest.mark.parametrize(("value", "verdict"), [(0.93, "met"), (0.97, "met, narrowly")])
def test_a_ratio_within_the_noise_of_whole_runs_says_so(value: float, verdict: str) -> None:
    assert report.Bar("r", value, 0.99, "times").verdict == verdict
    assert report.Bar("r", value, 0.99, "ms").verdict == "met", "only ratios are repeated runs'"


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


def test_a_slow_measure_makes_fewer_rounds_but_no_median_of_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bar = progress.current = progress.Progress({"first": 10.0}, io.StringIO())
    bar.begin("first")
    assert list(progress.rounds(5)) == [0, 1, 2, 3, 4]
    now = time.monotonic() + 13  # a quarter more than its time is over
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    assert list(progress.rounds(5)) == [0, 1, 2]
    assert list(progress.rounds(2)) == [0, 1]


def test_cpu_time_counts_what_a_child_took_before_it_ended() -> None:
    def tick() -> float:
        return processes.cpu_time([os.getpid()]).ticked / 1e9

    before = tick()
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < .1: 0"])
    assert 0.08 <= tick() - before < 1


def test_every_server_of_the_tables_has_its_program() -> None:
    with importable():
        servers = load("servers")
    assert set(servers.RIVALS) | set(servers.ONE_EACH) < set(servers.EVERYONE)
    names = {path.stem.removeprefix("upper_") for path in (BENCHMARKS / "peers").iterdir()}
    assert set(servers.EVERYONE) - {"epolld"} <= names


def test_a_crowd_that_broke_says_what_broke_and_is_judged() -> None:
    with importable():
        crowd, told = load("crowd"), load("measures/crowd")
    result = told.summarize(
        {"1000": dataclasses.asdict(crowd.Crowd(1000, 8, 1, "serving: 3 reset"))}
    )
    assert result.rows[0][0] == "1,000"
    assert result.rows[0][-2] == "serving: 3 reset"
    assert result.charts == [], "nothing was measured, so nothing is drawn"
    assert [(bar.value, bar.met) for bar in result.bars] == [(1000, False)]
    before = {"20000": result.raw["1000"], "500000": result.raw["1000"] | {"wanted": 500_000}}
    both = told.beside(result, before)
    assert [row[0] for row in both.rows] == ["1,000", "500,000"], "a quick crowd does not stay"


def test_a_client_that_stays_does_not_wait_to_see_whether_it_was_told_goodbye() -> None:
    clients = load("churn").Clients(0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(20)
        began = time.monotonic()
        assert not clients.said_goodbye(ours)
        assert time.monotonic() - began < 10
        theirs.send(b"x")
        assert not clients.said_goodbye(ours), "an answer is no goodbye"
        ours.recv(1)
        theirs.close()
        assert clients.said_goodbye(ours)


def test_a_peer_that_fails_is_left_out_and_epolld_is_not_excused() -> None:
    with importable():
        servers = load("servers")
    with servers.excused("perl"):
        raise servers.BenchmarkError("perl did not print 'ready':\nCan't locate Net/Server.pm")
    assert servers.failed == {"perl": "perl did not print 'ready':"}
    with pytest.raises(servers.BenchmarkError), servers.excused("epolld"):
        raise servers.BenchmarkError("epolld did not print 'ready'")


def test_a_measure_that_fails_loses_nothing_and_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with importable():
        run = load("run")
    here = {"DATA": tmp_path / "results.json", "PAGE": tmp_path / "benchmarks.md"}
    for name, path in here.items():
        monkeypatch.setattr(run, name, path)
    monkeypatch.setattr(run.servers, "build", lambda: None)
    monkeypatch.setattr(run.servers, "missing", lambda: {"go": "no Go here"})
    monkeypatch.setattr(run.servers, "raise_descriptor_limit", lambda: None)
    monkeypatch.setattr(run.servers, "pinned", lambda _core: contextlib.nullcontext())
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(run.pictures, "import_pyplot", lambda: None)  # nothing is drawn

    def fine(_names: object, _quick: bool) -> object:
        return run.report.Result("fine", "Fine", ("a",), [("1",)])

    def fails(_names: object, _quick: bool) -> object:
        raise ZeroDivisionError("nothing was counted")

    old = run.report.Result("fails", "Fails", ("a",), [("from before",)])
    here["DATA"].write_text(run.report.to_json([old]))
    measures = {"fails": run.Measure(fails, 1, 1), "fine": run.Measure(fine, 1, 1)}
    monkeypatch.setattr(run, "MEASURES", measures)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run.main() == 1
    told = capsys.readouterr()
    assert "fails         FAILED: nothing was counted" in told.out
    assert "fine          met" in told.out
    assert "ZeroDivisionError" in told.err
    assert "left out: Go, net: no Go here" in told.err
    page = here["PAGE"].read_text()
    assert "from before" in page
    assert "a newer run failed" in page
    assert list(json.loads(here["DATA"].read_text())) == ["fails", "fine"]


def test_the_table_of_the_lesson_is_replaced_where_it_is_marked_and_nothing_else() -> None:
    with importable():
        multiplexers = load("multiplexers")
    page = "before\n\n<!-- multiplexers -->\n| old |\n| --- |\n\n| another |\n"
    few = {name: {10: 1.04, 100: 2.0} for name in multiplexers.SERVERS}
    shown = multiplexers.show(page, few)
    assert "| old |" not in shown
    assert "| µs a message | 10 sockets | 100 sockets |\n" in shown
    assert "| epolld | 1.0 | 2.0 |\n\n| another |\n" in shown
    assert multiplexers.show(shown, few) == shown
    assert "<!-- multiplexers -->\n| µs a message |" in multiplexers.PAGE.read_text()


# What each of these measures a server with, and what that would find: figures that need no server.
FAKED = {
    "message": ("rounds", "cost"),
    "sizes": ("rounds", "cost"),
    "connect": ("rounds", "cost"),
    "coroutines": ("rounds", "cost"),
    "limits": ("rounds", "cost"),
    "workers": ("rounds", "cost"),
    "greeting": ("rounds", "cost"),
    "lines": ("measures.lines", "_cost"),
    "keyvalue": ("measures.keyvalue", "_cost"),
    "tls": ("measures.tls", "_cost"),
    "instructions": ("measures.instructions", "_count"),
}


@pytest.mark.parametrize("name", FAKED)
def test_a_peer_that_fails_in_a_measure_costs_only_its_own_row(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with importable():
        run = importlib.import_module("run")
        module = importlib.import_module(FAKED[name][0])

    @contextlib.contextmanager
    def running(server: str, **_options: object) -> Iterator[object]:
        if server in ("uvloop", "twisted", "lines_twisted"):
            raise run.servers.BenchmarkError(f"{server} did not print 'ready'")
        yield run.servers.Server(server, 0, None, 0.0)

    def cost(*_arguments: object, **_options: object) -> object:
        figure = next(figures)
        return module.Cost(*[figure] * 7) if FAKED[name][1] == "cost" else figure

    def count(server: str, messages: int) -> int:
        with running(server):
            return 1000 * messages

    figures = itertools.count(1.0)
    monkeypatch.setattr(module, FAKED[name][1], count if name == "instructions" else cost)
    monkeypatch.setattr(run.servers, "running", running)
    monkeypatch.setattr(run.servers, "failed", {})
    monkeypatch.setattr(run.servers, "BIN", tmp_path)
    monkeypatch.setattr(run.servers, "nginx_stream", lambda: ("nginx", "module"))
    monkeypatch.setattr("shutil.which", lambda _name: "/bin/true")
    monkeypatch.setattr(run.servers, "installed", lambda _module: True)
    (tmp_path / "tls_load").touch()
    result = run.MEASURES[name].measure(run.EVERYBODY, True)
    assert result.rows
    assert not [row for row in result.rows if "uvloop, Protocol" in row or "Twisted" in row]
    assert [chart for chart in result.charts if chart["values"]] == result.charts
    assert result.about.strip().endswith(".")
    (again,) = run.report.from_json(run.report.to_json([result]))
    assert run.report.section(again) == run.report.section(result)
