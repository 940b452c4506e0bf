"""Every parser under inputs that nobody thought of: see targets.py for what is promised."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from fuzzing import NAMES, start
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS, found, seeds

SEEDS = {name: seeds(name) for name in NAMES}


def test_the_runner_knows_every_target() -> None:
    assert sorted(TARGETS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_good_input_is_taken(name: str) -> None:
    """What the fuzzer starts from, whole and cut short."""
    for seed in seeds(name):
        TARGETS[name](seed)
        for size in range(0, len(seed), max(1, len(seed) // 20)):
            TARGETS[name](seed[:size])


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_once(name: str) -> None:
    for path in found(name):
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_input(name: str, data: st.DataObject) -> None:
    """Good input with a piece replaced: a located message, never a traceback."""
    seed = data.draw(st.sampled_from(SEEDS[name]))
    begin = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(begin, min(len(seed), begin + 10)))
    TARGETS[name](seed[:begin] + data.draw(st.binary(max_size=6)) + seed[end:])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_minute_of_fuzzing_each() -> None:
    """As many at a time as there are cores; some time is for what is compiled and started."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda name: start(name, 60), NAMES))
    failed = {name: said[-4000:] for name, (code, said) in zip(NAMES, results, strict=True) if code}
    assert not failed, "\n".join(f"{name}:\n{said}" for name, said in failed.items())
