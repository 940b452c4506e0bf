"""epolld.units: durations and sizes, both ways."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epolld import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("100ms", 0.1),
        ("9ms", 0.009),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1m30s", 90.0),
        ("1h0m0.5s", 3600.5),
        ("1.5h", 5400.0),
        ("30", 30.0),
        ("0", 0.0),
        (" 1s ", 1.0),
        (12, 12.0),
        (0.25, 0.25),
    ],
)
def test_durations_that_are_read(text: str | float, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a duration"),
        ("s", "not a duration"),
        ("30 s", "not a duration"),
        ("30S", "not a duration"),
        ("30s1m", "not a duration"),
        ("1s1s", "not a duration"),
        ("12:30", "not a duration"),
        ("nan", "not a duration"),
        ("inf", "not a duration"),
        ("\u0661s", "not a duration"),
        (True, "not a duration"),
        ("-5s", "negative"),
        (-1, "negative"),
        ("101000d", "100 years"),
        ("1e300s", "100 years"),
    ],
)
def test_durations_that_are_refused(text: str | int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        units.parse_duration(text)
    assert "write" in str(caught.value)  # the remedy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (30.0, "30s"),
        (60.0, "1m"),
        (90.0, "90s"),
        (3600.0, "1h"),
        (86400.0, "1d"),
        (0.0, "0s"),
        (0.5, "500ms"),
        (1.5, "1500ms"),
    ],
)
def test_durations_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0, units.MAX_DURATION))
def test_a_written_duration_reads_back(seconds: float) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        (4096, 4096),
        ("64k", 65536),
        ("64K", 65536),
        ("64kb", 65536),
        ("64KiB", 65536),
        ("1m", 1 << 20),
        ("2g", 2 << 30),
        ("1t", 1 << 40),
        ("7b", 7),
    ],
)
def test_sizes_that_are_read(text: str | int, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5m", "64 k", "64x", "1e3", True, "9" * 20])
def test_sizes_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        units.parse_size(text)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, units.MAX_SIZE))
def test_a_written_size_reads_back(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    for parse in (units.parse_duration, units.parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
