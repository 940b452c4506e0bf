"""The silence of a worker, as the master has watched it."""

from hypothesis import given
from hypothesis import strategies as st

from epolld.master.watchdog import LOOK, MOST, Silence


def test_silence_adds_up_look_by_look() -> None:
    silence = Silence(100.0)
    silence.look(7, 100.0)
    assert [silence.look(7, 100.0 + n * LOOK) for n in (1, 2, 3)] == [LOOK, 2 * LOOK, 3 * LOOK]
    assert silence.seconds == 3 * LOOK


def test_a_heartbeat_ends_it() -> None:
    silence = Silence(0.0)
    silence.look(1, 0.0)
    assert silence.look(1, 1.0) == 1.0
    assert silence.look(2, 2.0) == 0.0
    assert silence.look(2, 3.0) == 1.0


def test_a_late_look_counts_for_no_more_than_most() -> None:
    silence = Silence(0.0)
    silence.look(1, 0.0)
    assert silence.look(1, 3600.0) == MOST  # the machine slept for an hour
    assert silence.look(1, 3600.0 + LOOK) == MOST + LOOK
    assert silence.look(1, 9000.0) == 2 * MOST + LOOK


def test_a_worker_that_never_beat_is_watched_from_its_birth() -> None:
    silence = Silence(50.0)
    assert silence.look(0, 51.0) == 1.0


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 100)), max_size=30))
def test_it_never_exceeds_the_looks_nor_the_time(looks: list[tuple[int, float]]) -> None:
    silence, now = Silence(0.0), 0.0
    beat, same, waited = 0, 0, 0.0
    for new, step in looks:
        now += step
        same, waited = (same + 1, waited + step) if new == beat else (0, 0.0)
        beat = new
        seconds = silence.look(new, now)
        assert 0 <= seconds <= min(same * MOST, waited + 1e-6)
