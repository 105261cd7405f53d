from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.queue.policy import backoff


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 450.0)])
def test_the_certain_half_doubles_with_each_attempt_until_the_cap(attempts: int, seconds: float) -> None:
    assert backoff(attempts, 2.0, 900.0, 0.0) == timedelta(seconds=seconds)


def test_the_random_half_is_added_in_proportion() -> None:
    assert backoff(3, 2.0, 900.0, 0.5) == timedelta(seconds=6)


@given(
    attempts=st.integers(1, 10**6),
    base=st.floats(1e-3, 1e3),
    cap=st.floats(1e-3, 1e6),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_the_wait_is_between_half_the_ceiling_and_the_ceiling(
    attempts: int, base: float, cap: float, jitter: float
) -> None:
    wait = backoff(attempts, base, cap, jitter).total_seconds()
    ceiling = min(cap, base * 2.0 ** min(attempts - 1, 60))
    assert ceiling / 2 - 1e-6 <= wait <= ceiling + 1e-6


@pytest.mark.parametrize(("attempts", "jitter"), [(0, 0.0), (1, 1.0), (1, -0.1)])
def test_what_makes_no_sense_is_refused(attempts: int, jitter: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        backoff(attempts, 2.0, 900.0, jitter)
