"""epolld.metrics: what an application may declare and count."""

from __future__ import annotations

from threading import Thread

import pytest

from epolld import metrics
from epolld.ledger import Kind
from epolld.scoreboard import Scoreboard


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(metrics, "_metrics", {})
    monkeypatch.setattr(metrics, "_sheet", None)
    values = memoryview(bytearray(8 * metrics.MAX_METRICS)).cast("d")
    monkeypatch.setattr(metrics, "_values", values)


def test_a_counter_grows_and_a_gauge_stands() -> None:
    jobs, level = metrics.counter("jobs", "Jobs."), metrics.gauge("level")
    jobs.inc()
    jobs.inc(2.5)
    level.set(4)
    level.dec()
    level.inc(0.5)
    assert (jobs.value, level.value) == (3.5, 3.5)
    for amount in (-1, float("nan")):
        with pytest.raises(ValueError, match="only grows"):
            jobs.inc(amount)


def test_the_same_name_is_the_same_metric() -> None:
    assert metrics.counter("jobs") is metrics.counter("jobs_total")
    with pytest.raises(ValueError, match="a counter already"):
        metrics.gauge("jobs")


@pytest.mark.parametrize("name", ["", "a b", "1a", "a-b", "é", "x" * 65, "epolld_x", "__x"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"no name|reserved"):
        metrics.gauge(name)


def test_there_is_a_last_one() -> None:
    for number in range(metrics.MAX_METRICS):
        metrics.gauge(f"g{number}")
    with pytest.raises(ValueError, match=f"{metrics.MAX_METRICS} metrics already"):
        metrics.gauge("one_more")


def test_bound_it_counts_in_the_sheet_with_what_it_had() -> None:
    sheet = Scoreboard(1).sheet(0)
    jobs = metrics.counter("jobs", "Jobs done.")
    jobs.inc(2)
    metrics.bind(sheet)
    jobs.inc()
    late = metrics.gauge("late")
    late.set(7)
    assert [(m.kind, m.name) for m in sheet.declared()] == [
        (Kind.COUNTER, "jobs"),
        (Kind.GAUGE, "late"),
    ]
    assert sheet.values[:2].tolist() == [3.0, 7.0]


def test_threads_lose_nothing() -> None:
    jobs = metrics.counter("jobs")

    def work() -> None:
        for _ in range(20_000):
            jobs.inc()

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert jobs.value == 80_000
