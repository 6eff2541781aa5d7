"""Durations are counted to 2 %, and added up and taken apart without loss."""

from __future__ import annotations

from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.telemetry.histogram import STANDARD_BOUNDS, Histogram

DURATIONS = st.lists(st.floats(min_value=1e-6, max_value=1_000), min_size=1, max_size=200)


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(DURATIONS, st.sampled_from([0, 1, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_within_one_percent(values: list[float], percent: float) -> None:
    exact = sorted(values)[max(0, ceil(percent / 100 * len(values)) - 1)]

    assert histogram_of(values).percentile(percent) == pytest.approx(exact, rel=0.01, abs=1e-6)


@given(DURATIONS)
def test_count_sum_mean_and_maximum_are_exact(values: list[float]) -> None:
    histogram = histogram_of(values)

    assert histogram.count == len(values) == sum(count for _, count in histogram.values())
    assert histogram.sum == pytest.approx(sum(values))
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.max == max(values)


@given(st.lists(st.sampled_from([*STANDARD_BOUNDS, 0.0, 0.0011, 0.3, 99.0]), max_size=100))
def test_the_standard_buckets_are_exact_and_count_their_bound(values: list[float]) -> None:
    expected = [sum(value <= bound for value in values) for bound in STANDARD_BOUNDS]

    assert histogram_of(values).up_to() == expected


@given(DURATIONS, DURATIONS)
def test_a_span_holds_what_came_after_the_copy(before: list[float], after: list[float]) -> None:
    histogram = histogram_of(before)
    earlier = histogram.copy()
    for value in after:
        histogram.record(value)
    span, alone = histogram.since(earlier), histogram_of(after)

    assert list(span.values()) == list(alone.values())
    assert span.sum == pytest.approx(alone.sum, abs=1e-6)
    assert span.max == pytest.approx(alone.max, rel=0.011, abs=1e-6)


def test_what_is_out_of_range_is_counted_at_its_ends() -> None:
    histogram = histogram_of([0.0, 5e-7, 5_000.0])

    assert histogram.percentile(50) == 0
    assert histogram.percentile(100) == pytest.approx(1_000)
    assert histogram.max == 5_000


def test_an_empty_histogram_says_zero() -> None:
    empty = Histogram()

    assert (empty.percentile(99), empty.mean, empty.max, empty.count) == (0, 0, 0, 0)
    assert empty.up_to() == [0] * len(STANDARD_BOUNDS)


def test_the_memory_does_not_grow_with_what_was_seen() -> None:
    random = Random(1)
    histogram = Histogram()
    buckets = len(histogram._counts)
    for _ in range(10_000):
        histogram.record(10 ** random.uniform(-8, 5))

    assert len(histogram._counts) == buckets < 1_200
