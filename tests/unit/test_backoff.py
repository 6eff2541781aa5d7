"""Waits grow, are spread, and stay below their cap."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.backoff import RECONNECT, Backoff

backoffs = st.builds(
    Backoff,
    base_seconds=st.floats(0.001, 100),
    cap_seconds=st.floats(0.001, 1_000),
)


@given(backoffs, st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_a_wait_lies_between_nothing_and_its_bound(
    backoff: Backoff, attempt: int, random: Random
) -> None:
    wait = backoff.delay(attempt, random=random)

    assert 0 <= wait <= backoff.cap_seconds
    if attempt <= 60:
        assert wait <= backoff.base_seconds * 2 ** (attempt - 1)


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


@given(backoffs, st.integers(1, 100))
def test_bounds_double_until_the_cap_and_jitter_is_full(backoff: Backoff, attempt: int) -> None:
    bound = backoff.delay(attempt, random=Highest())
    following = backoff.delay(attempt + 1, random=Highest())

    assert following == pytest.approx(min(2 * bound, backoff.cap_seconds))
    assert backoff.delay(attempt, random=Lowest()) == 0


def test_a_server_is_reached_again_within_ten_seconds_of_its_return() -> None:
    assert max(RECONNECT.delay(attempt, random=Highest()) for attempt in range(1, 1_000)) <= 5
