"""The lab's histogram is off by 0.1 % at most, and other programs can read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lab.hdr import LEAST, MOST, HdrHistogram

BY_THE_PYTHON_PACKAGE = "HISTFAAAAC14nJNpmSzMwMDAxwABzFCaEURcm7yEwf4DVIDlpzwTW7fGBObri5iYAK6CCH0="
"""1 twice, 2,047, three of 2,048, 200 of 12,345 and an hour, by hdrhistogram 0.10.3."""
HELD = [(1, 2), (2_047, 1), (2_049, 3), (12_351, 200), (3_600_809_983, 1)]

counted = st.dictionaries(st.integers(LEAST, MOST), st.integers(1, 2**40), max_size=30)


def histogram_of(counts: dict[int, int]) -> HdrHistogram:
    histogram = HdrHistogram()
    for value, count in counts.items():
        histogram.record(value, count)
    return histogram


def test_it_reads_and_writes_the_published_format() -> None:
    read = HdrHistogram.decode(BY_THE_PYTHON_PACKAGE)
    made = histogram_of({1: 2, 2_047: 1, 2_048: 3, 12_345: 200, 3_600_000_000: 1})
    assert list(read.values()) == list(made.values()) == HELD
    assert made.encode() == BY_THE_PYTHON_PACKAGE


@given(value=st.integers(LEAST, MOST))
def test_a_value_is_told_to_a_tenth_of_a_percent(value: int) -> None:
    ((told, count),) = histogram_of({value: 1}).values()
    assert count == 1
    assert value <= told <= value * 1.001


@given(counts=counted)
def test_what_is_encoded_is_read_back(counts: dict[int, int]) -> None:
    histogram = histogram_of(counts)
    assert list(HdrHistogram.decode(histogram.encode()).values()) == list(histogram.values())
    assert sum(count for _, count in histogram.values()) == sum(counts.values())


@given(some=counted, others=counted)
def test_two_are_added_up(some: dict[int, int], others: dict[int, int]) -> None:
    total = histogram_of(some)
    total.add(histogram_of(others))
    both = histogram_of(some)
    for value, count in others.items():
        both.record(value, count)
    assert list(total.values()) == list(both.values())


def test_what_is_outside_of_the_range_counts_as_the_nearest() -> None:
    assert list(histogram_of({-5: 1, 0: 1, 1: 1}).values()) == [(1, 3)]
    assert list(histogram_of({MOST * 10: 1}).values()) == list(histogram_of({MOST: 1}).values())


@pytest.mark.parametrize(
    "text", ["", "AAAA", "not base64!", BY_THE_PYTHON_PACKAGE[:-8], BY_THE_PYTHON_PACKAGE[:40]]
)
def test_what_is_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a histogram"):
        HdrHistogram.decode(text)
