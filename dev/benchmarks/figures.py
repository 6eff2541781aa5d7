"""Rates, medians, and ratios pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

FIRST, LAST = 0.05, 0.95
"""The part of the events that a rate is counted over: without the start and the last few."""


class NoRate(ValueError):
    """The events are too few, or came all at once."""


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and how far they reach."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises `ValueError` where there is no value."""
        if not values:
            raise ValueError("no value, so no median")
        return cls(median(values), min(values), max(values))


def bounds(count: int) -> tuple[int, int]:
    """The numbers (from 1) of the first and the last event that a rate is counted between.

    Raises `NoRate`.
    """
    first = max(1, round(count * FIRST))
    last = min(count, round(count * LAST))
    if last <= first:
        raise NoRate(f"{count} events are too few for a rate: take more commands")
    return first, last


def rate(times: Sequence[float]) -> float:
    """Events per second from the 5th to the 95th percentile of the events received.

    That leaves out the start (a process that connects, a prefetch that fills), and the end, where
    one of several tasks or processes is the last to finish. Raises `NoRate`.
    """
    first, last = bounds(len(times))
    seconds = times[last - 1] - times[first - 1]
    if seconds <= 0:
        raise NoRate("all events came at the same time: take more commands")
    return (last - first) / seconds


def ratios(above: Mapping[int, float], below: Mapping[int, float]) -> list[float]:
    """The ratio in each round that both took part in.

    Those of different rounds may not be divided, because the machine's own speed drifts.
    """
    return [above[key] / below[key] for key in sorted(above.keys() & below.keys())]
