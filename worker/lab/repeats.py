"""The repeats of one setting, seen as one: means, intervals, a merged distribution of waits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from worker.lab.durations import Durations, durations_of, histogram_of, recorded_in
from worker.lab.findings import CheckResult, Interval
from worker.lab.measured import Point
from worker.lab.setting import Setting

CONFIDENCE = 0.95
FULL = 0.9
"""Share of the connections that are busy from which on the pool counts as full."""


@dataclass(frozen=True, eq=False)
class Repeats:
    """All points of one setting."""

    setting: Setting
    points: tuple[Point, ...]

    @cached_property
    def throughput(self) -> float:
        """Mean of the repeats, per second."""
        return mean(point.throughput_per_second for point in self.points)

    @cached_property
    def throughput_interval(self) -> Interval:
        """Interval of the mean throughput, by the method of batch means: see `mean_interval`."""
        return mean_interval(self.batch_means)

    @property
    def batch_means(self) -> list[float]:
        """The throughput of each interval, or of each repeat where there are none."""
        samples = [sample for point in self.points for sample in point.samples]
        return [each.throughput_per_second for each in samples or self.points]

    @cached_property
    def wait(self) -> Durations:
        """The waits of all repeats together."""
        return merged([point.wait.seconds for point in self.points])

    @cached_property
    def hold(self) -> Durations:
        """The holds of all repeats together."""
        return merged([point.hold.seconds for point in self.points])

    @cached_property
    def latency(self) -> Durations:
        """The latencies of all repeats together."""
        return merged([point.latency_seconds for point in self.points])

    @cached_property
    def wait_p99_interval(self) -> Interval:
        """From the lowest to the highest that any repeat allows."""
        return hull(quantile_interval(point.wait.seconds, 0.99) for point in self.points)

    @cached_property
    def latency_p99_interval(self) -> Interval:
        """From the lowest to the highest that any repeat allows."""
        return hull(quantile_interval(point.latency_seconds, 0.99) for point in self.points)

    @property
    def busy(self) -> float:
        """Mean number of connections checked out."""
        return mean(point.pool.busy_mean for point in self.points)

    @property
    def is_full(self) -> bool:
        """Whether the load filled this pool, so that its throughput is the pool's own limit."""
        return self.busy >= FULL * self.setting.connections

    @property
    def arrived_per_second(self) -> float:
        """Work that was intended, started or not."""
        seconds = sum(point.measured_seconds for point in self.points)
        return sum(point.load.intended for point in self.points) / seconds

    @property
    def timeouts(self) -> int:
        """Checkouts that got no connection in time."""
        return sum(point.wait.timeouts for point in self.points)

    @property
    def dropped(self) -> int:
        """Work that was never started."""
        return sum(point.load.dropped for point in self.points)

    @property
    def lost(self) -> int:
        """Arrivals that timed out in the pool, or were never started."""
        return self.timeouts + self.dropped

    @property
    def loop_lag(self) -> float:
        """How late the event loop of the pool woke up: the highest p99, in seconds."""
        lags = [point.worker.loop_lag_seconds for point in self.points if point.worker]
        return max((lag.p99 for lag in lags if lag), default=0.0)

    @property
    def pool(self) -> str:
        """The pool as people write it: `8+4`."""
        return self.setting.pool

    def is_alike(self, other: Repeats) -> bool:
        """Whether the two differ in their pool and load alone."""
        left, right = self.setting, other.setting
        return (left.group_size, left.path) == (right.group_size, right.path)

    @property
    def failed_checks(self) -> list[CheckResult]:
        """All checks that failed here."""
        return [check for point in self.points for check in point.checks if not check.passed]

    def __str__(self) -> str:
        numbers = ", ".join(str(point.repeat + 1) for point in self.points)
        return f"{self.setting}, repeat {numbers}"


def by_setting(points: Iterable[Point]) -> list[Repeats]:
    """The points grouped by their setting, small pools first."""
    groups: dict[Setting, list[Point]] = {}
    for point in points:
        groups.setdefault(point.setting, []).append(point)
    repeats = [Repeats(setting, tuple(found)) for setting, found in groups.items()]
    return sorted(repeats, key=lambda each: _order(each.setting))


def _order(setting: Setting) -> tuple[Any, ...]:
    return (
        setting.path,
        setting.load,
        setting.rate_per_second or 0,
        setting.clients or 0,
        setting.group_size,
        setting.lanes or 0,
        setting.connections,
        setting.pool_size,
    )


def mean(values: Iterable[float]) -> float:
    """The mean; 0 of nothing."""
    found = list(values)
    return float(np.mean(found)) if found else 0.0


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean.

    The values are batch means, one a second: within a second what follows each other depends on
    each other, from second to second much less. Source: A. M. Law, "Simulation Modeling and
    Analysis", 5th ed., 9.5.3 (batch means).
    """
    middle = mean(values)
    if len(values) < 2:
        return Interval(low=middle, high=middle)
    error = float(stats.sem(values))
    if error == 0:
        return Interval(low=middle, high=middle)
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=middle, scale=error)
    return Interval(low=float(low), high=float(high))


def quantile_interval(durations: Durations, quantile: float) -> Interval:
    """Distribution-free interval of a quantile, from the order statistics of the histogram.

    Source: W. J. Conover, "Practical Nonparametric Statistics", 3rd ed., 3.2. Without the values
    the interval is the percentile itself.
    """
    found = recorded_in(durations)
    count = durations.count
    if found is None or count < 2:
        value = {0.5: durations.p50, 0.99: durations.p99}.get(quantile, durations.max)
        return Interval(low=value, high=value)
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(quantile * (1 - quantile))
    return Interval(
        low=found.quantile(quantile - reach / math.sqrt(count)),
        high=found.quantile(quantile + reach / math.sqrt(count)),
    )


def hull(intervals: Iterable[Interval]) -> Interval:
    """The smallest interval that holds all of these."""
    found = list(intervals)
    return Interval(low=min(each.low for each in found), high=max(each.high for each in found))


def merged(parts: Sequence[Durations]) -> Durations:
    """The distribution of all values together; of the largest part where values were not kept."""
    if len(parts) == 1:
        return parts[0]
    histograms = [kept for part in parts if (kept := histogram_of(part)) is not None]
    if len(histograms) < len(parts):
        return max(parts, key=lambda part: part.count)
    first, *others = histograms
    for other in others:
        first.add(other)
    return durations_of(first)
