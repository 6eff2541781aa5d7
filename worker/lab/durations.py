"""Distributions of durations, small enough to keep for each point.

Values are recorded in microseconds, from 1 µs to 1 h, with three significant digits: a percentile
is off by 0.1 % at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from worker.lab.hdr import HdrHistogram


class Model(BaseModel):
    """What all parts of a result have in common: frozen, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Durations(Model):
    """A distribution of durations, in seconds. Without any value all of it is 0."""

    count: Count
    mean: Amount
    p50: Amount
    p90: Amount
    p95: Amount
    p99: Amount
    p999: Amount
    max: Amount
    deviation: Amount = 0.0
    """Standard deviation."""
    histogram: str | None = None
    """All values, as HdrHistogram V2 (base64, compressed), in microseconds."""

    @property
    def total(self) -> float:
        """All of them together, in seconds."""
        return self.mean * self.count


class RecordedDurations(NamedTuple):
    """The values of a histogram in ascending order, and how often each was recorded."""

    seconds: NDArray[np.float64]
    counts: NDArray[np.int64]

    def quantile(self, share: float) -> float:
        """The smallest value that so many of all values do not exceed; 0 without any."""
        if not self.counts.size:
            return 0.0
        reached = np.cumsum(self.counts)
        place = max(min(share, 1.0) * reached[-1], 1)
        # Not a hair above a whole number, which floating point makes of 0.99 x 100.
        return float(self.seconds[np.searchsorted(reached, np.ceil(place - 1e-9))])


def new_histogram() -> HdrHistogram:
    """An empty histogram with the range and precision of all histograms of the lab."""
    return HdrHistogram()


def record(histogram: HdrHistogram, seconds: float, count: int = 1) -> None:
    """Record a duration; what is outside of the range counts as the nearest that is within."""
    histogram.record(round(seconds * 1e6), count)


def recorded(histogram: HdrHistogram) -> RecordedDurations:
    """What was recorded; each value is the highest that the histogram cannot tell from it."""
    pairs = np.array(list(histogram.values()), dtype=np.int64).reshape(-1, 2)
    return RecordedDurations(pairs[:, 0] / 1e6, pairs[:, 1])


def durations_of(histogram: HdrHistogram, *, keep_values: bool = True) -> Durations:
    """What is kept of a histogram; without `keep_values` only its percentiles."""
    found = recorded(histogram)
    count = int(found.counts.sum())
    if count == 0:
        return Durations(count=0, mean=0, p50=0, p90=0, p95=0, p99=0, p999=0, max=0)
    mean = float(np.average(found.seconds, weights=found.counts))
    variance = float(np.average((found.seconds - mean) ** 2, weights=found.counts))
    return Durations(
        count=count,
        mean=mean,
        p50=found.quantile(0.5),
        p90=found.quantile(0.9),
        p95=found.quantile(0.95),
        p99=found.quantile(0.99),
        p999=found.quantile(0.999),
        max=float(found.seconds[-1]),
        deviation=variance**0.5,
        histogram=histogram.encode() if keep_values else None,
    )


def durations_from(seconds: Iterable[float], *, keep_values: bool = True) -> Durations:
    """The distribution of these durations."""
    return durations_from_counts(Counter(seconds).items(), keep_values=keep_values)


def durations_from_counts(
    counts: Iterable[tuple[float, int]], *, keep_values: bool = True
) -> Durations:
    """The distribution of durations that are counted already: pairs of seconds and a count."""
    histogram = new_histogram()
    for seconds, count in counts:
        record(histogram, seconds, count)
    return durations_of(histogram, keep_values=keep_values)


def histogram_of(durations: Durations) -> HdrHistogram | None:
    """The histogram again, if it was kept."""
    if durations.histogram is None:
        return None
    return HdrHistogram.decode(durations.histogram)


def recorded_in(durations: Durations) -> RecordedDurations | None:
    """All values again, if they were kept."""
    histogram = histogram_of(durations)
    return None if histogram is None else recorded(histogram)
