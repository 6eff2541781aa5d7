"""What is measured next: plans that know nothing of servers, so that they can be tested without.

A plan is a generator: it yields a `PlannedTrial` and is sent the `Point` that was measured. So a
sweep can look closer where it matters (`sweep.py`), and a search can search.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from worker.lab.measured import Point
from worker.lab.scenario import Scenario

KEEPS_UP = 0.97
"""Share of the intended arrivals that must be completed; below, work piles up."""

MOST_DOUBLINGS = 10
CLOSE_ENOUGH = 1.05
"""A capacity is known when the lowest rate that fails is at most this many times it."""


@dataclass(frozen=True)
class PlannedTrial:
    """One setting, to be measured once."""

    scenario: Scenario
    repeat: int = 0
    left: int = 0
    """How many more the plan has in mind after this one, at least."""


Plan = Generator[PlannedTrial, Point, float | None]
"""Yields trials, is sent points; returns the capacity, if it was after that."""


def repeats(scenario: Scenario, times: int) -> Plan:
    """One setting, so many times."""
    for number in range(times):
        yield PlannedTrial(scenario, number, times - 1 - number)
    return None


@dataclass(frozen=True)
class Limit:
    """What a rate must keep to count."""

    latency_p99_seconds: float | None = None
    """From the intended start to the end of the work."""
    wait_p99_seconds: float | None = None

    def is_kept(self, point: Point) -> bool:
        """Whether all work was done, in time."""
        within = (
            (self.latency_p99_seconds, point.latency_seconds.p99),
            (self.wait_p99_seconds, point.wait.seconds.p99),
        )
        return (
            all(limit is None or found <= limit for limit, found in within)
            and point.load.failed == point.load.dropped == 0
            # By the end of the window, that is: what is done later has piled up.
            and point.throughput_per_second * point.measured_seconds
            >= KEEPS_UP * point.load.intended
        )


def find_capacity(scenario: Scenario, limit: Limit) -> Plan:
    """The highest rate that keeps the limit: doubled until it fails, then bisected.

    In the end the rate is measured once more, with other arrivals; if it fails then, it was luck,
    and the next lower one is tried. Returns `None` if even the lowest rate fails.
    """
    low, high = yield from _bracket(scenario, limit)
    while low and high and high / low > CLOSE_ENOUGH:
        middle = (low * high) ** 0.5
        point = yield PlannedTrial(_at(scenario, middle), left=_steps(low, high))
        low, high = (middle, high) if limit.is_kept(point) else (low, middle)
    for repeat in range(1, 4):
        if not low:
            return None
        if limit.is_kept((yield PlannedTrial(_at(scenario, low), repeat))):
            return low
        low /= CLOSE_ENOUGH
    return None


def _bracket(
    scenario: Scenario, limit: Limit
) -> Generator[PlannedTrial, Point, tuple[float | None, float | None]]:
    """A rate that keeps the limit and one that does not; `None` where there is none."""
    rate = scenario.load.rate_per_second
    low = high = None
    for _ in range(MOST_DOUBLINGS):
        if limit.is_kept((yield PlannedTrial(_at(scenario, rate), left=4))):
            low, following = rate, rate * 2
        else:
            high, following = rate, rate / 2
        if low and high:
            break
        rate = following
    return low, high


def _steps(low: float, high: float) -> int:
    """How many more a bisection takes, the check in the end included."""
    steps = 1
    while high / low > CLOSE_ENOUGH:
        high = (low * high) ** 0.5
        steps += 1
    return steps


def _at(scenario: Scenario, rate: float) -> Scenario:
    return scenario.changed(load={"rate_per_second": round(rate, 3)})
