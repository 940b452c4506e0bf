"""Durations and sizes as people write them: "30s", "1m30s", "64k".

A leaf: imports nothing of ours, and knows nothing of YAML or of who asks.
`parse_*` and `format_*` are inverse: parsing what was formatted gives the same number.
"""

import re

# Beyond any use, and small enough that adding it to a clock stays exact to the microsecond.
MAX_DURATION = 100 * 365 * 86400.0
MAX_SIZE = 2**63 - 1

_NUMBER = r"\d{1,20}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,3})?"
_PLAIN_NUMBER = re.compile(_NUMBER, re.ASCII)
# Largest unit first, each at most once.
_DURATION = re.compile(
    rf"(?:({_NUMBER})d)?(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?",
    re.ASCII,
)
_SECONDS = {"d": 86400, "h": 3600, "m": 60}
_SIZE = re.compile(r"(\d{1,20})([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_BYTES = {"t": 1 << 40, "g": 1 << 30, "m": 1 << 20, "k": 1 << 10}


def parse_duration(text: str | int | float) -> float:
    """Seconds in `text`: "500ms", "30s", "5m", "2h", "1d", "1m30s"; plain numbers are seconds.

    Raises ValueError, with a remedy, for anything else, below 0 or above 100 years.
    """
    if isinstance(text, bool):
        raise _not_a_duration(text)
    written = str(text).strip()
    if written.startswith("-"):
        raise ValueError(f"a duration cannot be negative: {written}; write 0 or more, such as 30s")
    if _PLAIN_NUMBER.fullmatch(written):
        seconds = float(written)
    else:
        match = _DURATION.fullmatch(written)
        if not match or not written:
            raise _not_a_duration(text)
        days, hours, minutes, secs, millis = (float(part or 0) for part in match.groups())
        # Dividing, unlike multiplying by 0.001, rounds correctly: "100ms" is exactly 0.1.
        seconds = days * 86400 + hours * 3600 + minutes * 60 + secs + millis / 1000
    if not seconds <= MAX_DURATION:
        raise ValueError(f"{written} is longer than 100 years; write a shorter duration")
    return seconds


def format_duration(seconds: float) -> str:
    """`seconds` in the largest unit that needs no fraction: "30s", "5m", "1h", "500ms"."""
    if seconds == int(seconds):
        whole = int(seconds)
        for unit, size in _SECONDS.items():
            if whole and whole % size == 0:
                return f"{whole // size}{unit}"
        return f"{whole}s"
    millis = round(seconds * 1000)
    if millis / 1000 == seconds:
        return f"{millis}ms"
    return f"{seconds!r}s"


def parse_size(text: str | int) -> int:
    """Bytes in `text`: "64k" is 65536; also m, g, t, "64kb", "64KiB"; plain numbers are bytes.

    Raises ValueError, with a remedy, for anything else.
    """
    written = str(text).strip()
    match = _SIZE.fullmatch(written)
    if not match or isinstance(text, bool):
        if written.startswith("-"):
            raise ValueError(f"a size cannot be negative: {written}; write 0 or more, such as 64k")
        raise ValueError(f"{written!r} is not a size; write bytes, such as 4096, or 64k, 1m, 2g")
    size = int(match[1]) * _BYTES.get(match[2].lower(), 1)
    if size > MAX_SIZE:
        raise ValueError(f"{written} is more than this machine can count; write a smaller size")
    return size


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that needs no fraction: 65536 is "64k"."""
    for unit, factor in _BYTES.items():
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _not_a_duration(text: object) -> ValueError:
    return ValueError(
        f"{str(text)!r} is not a duration; write a number and a unit, such as 500ms, 30s, 5m, "
        "2h, 1d or 1m30s"
    )
