"""Counters and gauges of an application, shown beside epolld's own where `metrics` is configured.

    from epolld import Protocol, metrics

    ORDERS = metrics.counter("shop_orders", "Orders taken.")

    class Shop(Protocol):
        def data_received(self, data: bytes) -> None:
            ORDERS.inc()

Declare them when your module is imported, in the same order in every worker or not: they go by
their names. A counter is summed over a worker's successors and never falls; a gauge is what the
living worker last said. Each has the label `worker`. Values stand in memory that all processes
share, so nobody asks the worker for them. Outside of epolld (in a test, say) they simply count.
A leaf.
"""

from __future__ import annotations

import array
from _thread import allocate_lock
from typing import TypeVar

from epolld import ledger
from epolld.ledger import Declared, Kind, Sheet

MAX_METRICS = ledger.APPLICATION

# Names that belong to others: ours, and what scrapers add.
RESERVED = ("epolld_", "python_", "process_", "scrape_", "__")

_values: memoryview[float] = memoryview(array.array("d", [0.0] * MAX_METRICS))
_sheet: Sheet | None = None
_lock = allocate_lock()  # blocking handlers run in several threads


class _Metric:
    """One value; `declared` says what it is."""

    def __init__(self, place: int, declared: Declared) -> None:
        self._place = place
        self.declared = declared

    @property
    def value(self) -> float:
        """As this process counts it."""
        found: float = _values[self._place]
        return found

    def _add(self, amount: float) -> None:
        with _lock:
            _values[self._place] += amount


_metrics: dict[str, _Metric] = {}  # by name
M = TypeVar("M", bound=_Metric)


class Counter(_Metric):
    """A number that only grows."""

    def inc(self, amount: float = 1) -> None:
        """Count `amount`, which is not negative (ValueError)."""
        if not amount >= 0:
            raise ValueError(f"a counter only grows; cannot add {amount}")
        self._add(amount)


class Gauge(_Metric):
    """A number that goes up and down."""

    def set(self, value: float) -> None:
        """Say how it stands."""
        _values[self._place] = value

    def inc(self, amount: float = 1) -> None:
        """Raise it."""
        self._add(amount)

    def dec(self, amount: float = 1) -> None:
        """Lower it."""
        self._add(-amount)


def counter(name: str, help: str = "") -> Counter:
    """The counter of this name, shown as `NAME_total`; the same one if it is there already.

    Raises ValueError for a name that cannot be, or when there are MAX_METRICS.
    """
    return _declare(Counter, Kind.COUNTER, name.removesuffix("_total"), help)


def gauge(name: str, help: str = "") -> Gauge:
    """The gauge of this name; otherwise as `counter`."""
    return _declare(Gauge, Kind.GAUGE, name, help)


def _declare(cls: type[M], kind: Kind, name: str, help: str) -> M:
    if not ledger.METRIC_NAME.fullmatch(name) or len(name) > ledger.METRIC_NAME_BYTES:
        raise ValueError(
            f"{name!r} is no name for a metric: letters, digits and '_', at most "
            f"{ledger.METRIC_NAME_BYTES}, not beginning with a digit"
        )
    if name.startswith(RESERVED):
        raise ValueError(f"{name!r}: names that begin so are reserved; choose another")
    known = _metrics.get(name)
    if known is not None:
        if not isinstance(known, cls):
            raise ValueError(f"{name!r} is a {type(known).__name__.lower()} already")
        return known
    place = len(_metrics)
    if place == MAX_METRICS:
        raise ValueError(
            f"{name!r}: there are {MAX_METRICS} metrics already, the most there can be"
        )
    metric = cls(place, Declared(kind, name, help))
    _metrics[name] = metric
    if _sheet is not None:
        _sheet.declare(place, metric.declared)
    return metric


def bind(sheet: Sheet) -> None:
    """In a worker: count in shared memory from now on."""
    global _values, _sheet
    with _lock:
        if _metrics:  # else nothing is written, and no memory taken
            sheet.values[:] = _values
        for metric in _metrics.values():
            sheet.declare(metric._place, metric.declared)
        _values, _sheet = sheet.values, sheet
