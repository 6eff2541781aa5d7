"""Rates, medians and ratios."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.benchmarks.figures import NoRate, Spread, bounds, rate, ratios


def test_a_steady_stream_has_its_rate_whatever_its_length() -> None:
    for count in (40, 1_000, 9_999):
        assert rate([number / 250 for number in range(count)]) == pytest.approx(250)


def test_a_slow_start_and_a_slow_end_do_not_count() -> None:
    steady = [100 + number / 500 for number in range(1_000)]
    late = [10.0, *steady[1:-40], *(1_000 + number for number in range(40))]
    assert rate(late) == pytest.approx(500)


def test_a_pause_in_the_middle_counts() -> None:
    first = [number / 100 for number in range(100)]
    paused = [*first, *(time + 11 for time in first)]
    assert rate(paused) == pytest.approx(180 / 11.8, rel=0.02)


@pytest.mark.parametrize("times", [[], [1.0], [3.0, 3.0, 3.0, 3.0]])
def test_without_any_time_between_events_there_is_no_rate(times: list[float]) -> None:
    with pytest.raises(NoRate, match="take more commands"):
        rate(times)


@given(st.integers(3, 100_000))
def test_the_bounds_lie_within_the_events(count: int) -> None:
    first, last = bounds(count)
    assert 1 <= first < last <= count
    assert last - first >= 0.85 * (count - 2)


def test_a_spread_is_the_middle_and_the_ends() -> None:
    assert Spread.of([5, 1, 9, 2]) == Spread(median=3.5, low=1, high=9)
    with pytest.raises(ValueError, match="no value"):
        Spread.of([])


def test_ratios_pair_what_was_measured_in_the_same_round() -> None:
    # The machine was half as fast in the second round; the ratio is the same nevertheless.
    assert ratios({1: 400, 2: 200, 4: 90}, {2: 20, 1: 40, 3: 1}) == [10, 10]


def test_without_a_common_round_there_is_no_ratio() -> None:
    assert ratios({1: 400}, {2: 20}) == []
