"""Distributions of durations, small enough to keep for each point: HdrHistogram.

Source: G. Tene, HdrHistogram (hdrhistogram.org). Values are recorded in microseconds, from
1 µs to 1 h, with three significant digits: a percentile is off by 0.1 % at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from hdrh.histogram import HdrHistogram
from pydantic import BaseModel, ConfigDict, Field

LEAST_MICROSECONDS, MOST_MICROSECONDS, SIGNIFICANT_DIGITS = 1, 3_600_000_000, 3


class Model(BaseModel):
    """What all parts of a result have in common: frozen, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Value = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Durations(Model):
    """A distribution of durations, in seconds. Without any value all of it is 0."""

    count: Annotated[int, Field(ge=0)]
    mean: Value
    p50: Value
    p90: Value
    p95: Value
    p99: Value
    p999: Value
    max: Value
    deviation: Value = 0.0
    """Standard deviation."""
    histogram: str | None = None
    """All values, as HdrHistogram V2 (base64, compressed), in microseconds."""


def new_histogram() -> HdrHistogram:
    """An empty histogram with the range and precision of all histograms of the lab."""
    return HdrHistogram(LEAST_MICROSECONDS, MOST_MICROSECONDS, SIGNIFICANT_DIGITS)


def record(histogram: HdrHistogram, seconds: float, count: int = 1) -> None:
    """Record a duration; what is outside of the range counts as the nearest that is within."""
    microseconds = round(seconds * 1e6)
    bounded = min(max(microseconds, LEAST_MICROSECONDS), MOST_MICROSECONDS)
    histogram.record_value(bounded, count)


def durations_of(histogram: HdrHistogram, *, keep_values: bool = True) -> Durations:
    """What is kept of a histogram; without `keep_values` only its percentiles."""
    count = int(histogram.get_total_count())
    if count == 0:
        return Durations(count=0, mean=0, p50=0, p90=0, p95=0, p99=0, p999=0, max=0)

    def at(percentile: float) -> float:
        return float(histogram.get_value_at_percentile(percentile)) / 1e6

    return Durations(
        count=count,
        mean=float(histogram.get_mean_value()) / 1e6,
        p50=at(50),
        p90=at(90),
        p95=at(95),
        p99=at(99),
        p999=at(99.9),
        max=float(histogram.get_max_value()) / 1e6,
        deviation=float(histogram.get_stddev()) / 1e6,
        histogram=histogram.encode().decode("ascii") if keep_values else None,
    )


def durations_from(seconds: Iterable[float], *, keep_values: bool = True) -> Durations:
    """The distribution of these durations."""
    histogram = new_histogram()
    for value in seconds:
        record(histogram, value)
    return durations_of(histogram, keep_values=keep_values)


def histogram_of(durations: Durations) -> HdrHistogram | None:
    """The histogram again, if it was kept."""
    if durations.histogram is None:
        return None
    return HdrHistogram.decode(durations.histogram.encode("ascii"))
