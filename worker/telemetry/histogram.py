"""A histogram of durations that is cheap to write to: fixed buckets, each 2 % wide.

Recording a value takes 0.25 µs, which is paid with every statement; HdrHistogram, whose format the
lab's results use, takes 0.9 µs in its Python package. Here a percentile is at most 1 % off, and a
histogram takes 9 KB, whatever it has seen.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import sqrt
from typing import ClassVar, Self

STANDARD_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Seconds; the buckets that OpenTelemetry's conventions for database connections ask for."""

_LEAST, _PER_DECADE, _DECADES = 1e-6, 116, 9  # 10 ** (1 / 116) = 1.02; 1 µs to 1,000 s
# The standard bounds are among ours, so that counting up to one of them is exact.
_BOUNDS = sorted(
    {_LEAST * 10 ** (step / _PER_DECADE) for step in range(_PER_DECADE * _DECADES + 1)}
    | set(STANDARD_BOUNDS)
)


class Histogram:
    """Counts of durations, in seconds."""

    __slots__ = ("_counts", "count", "max", "sum")

    bounds: ClassVar[Sequence[float]] = STANDARD_BOUNDS

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self.count = 0
        self.sum = 0.0
        self.max = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self.count += 1
        self.sum += seconds
        if seconds > self.max:  # noqa: PLR1730 - a call to max() would take a third longer
            self.max = seconds

    @property
    def mean(self) -> float:
        """The mean in seconds; 0 where nothing was counted."""
        return self.sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The duration that so many percent do not exceed (nearest rank), in seconds, within 1 %.

        What is shorter than 1 µs is told as 0; 0 too where nothing was counted.
        """
        rank, seen = percent / 100 * self.count, 0
        for middle, count in self.values():
            seen += count
            if seen >= rank:
                return min(middle, self.max)
        return self.max

    def values(self) -> Iterator[tuple[float, int]]:
        """The middle of each bucket that is not empty, in seconds, and its count."""
        for index, count in enumerate(self._counts):
            if count:
                yield _middle(index), count

    def up_to(self, bounds: Sequence[float] = STANDARD_BOUNDS) -> list[int]:
        """How many durations are at most as long as each bound; exact for the standard ones."""
        return [sum(self._counts[: bisect_right(_BOUNDS, bound)]) for bound in bounds]

    def copy(self) -> Self:
        """The histogram as it is now."""
        twin = type(self)()
        twin._counts = self._counts.copy()
        twin.count, twin.sum, twin.max = self.count, self.sum, self.max
        return twin

    def since(self, earlier: Histogram) -> Self:
        """What was counted after `earlier`, a copy of this one, was made.

        The largest value of that span is known to 1 %, unless it is the largest of all.
        """
        span = type(self)()
        span._counts = [now - then for now, then in zip(self._counts, earlier._counts, strict=True)]
        span.count = self.count - earlier.count
        span.sum = self.sum - earlier.sum
        if self.max > earlier.max:
            span.max = self.max
        else:
            span.max = max((middle for middle, _ in span.values()), default=0.0)
        return span

    def __repr__(self) -> str:
        return (
            f"<{self.count} durations, mean {self.mean:.6f} s, "
            f"p99 {self.percentile(99):.6f} s, max {self.max:.6f} s>"
        )


class Sizes:
    """Counts of whole numbers from 1, in buckets that are powers of two."""

    __slots__ = ("_counts", "count", "sum")

    bounds: ClassVar[Sequence[float]] = tuple(float(1 << power) for power in range(11))

    def __init__(self) -> None:
        self._counts = [0] * len(self.bounds)
        self.count = self.sum = 0

    def record(self, size: int) -> None:
        """Count one."""
        if (power := (size - 1).bit_length()) < len(self._counts):
            self._counts[power] += 1
        self.count += 1
        self.sum += size

    def up_to(self) -> list[int]:
        """How many were at most as large as each bound."""
        return list(accumulate(self._counts))


def _middle(index: int) -> float:
    if index == 0:
        return 0.0
    if index == len(_BOUNDS):
        return _BOUNDS[-1]
    return sqrt(_BOUNDS[index - 1] * _BOUNDS[index])
