"""What the worker is to reach, as ratios within a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dev.benchmarks.figures import Spread, ratios

Speeds = Mapping[str, Mapping[int, float]]
"""By contender and round, on a scale of that round."""


@dataclass(frozen=True)
class Target:
    """A ratio of two contenders; of several on one side, the one with the best median counts.

    All of those below must have taken part, or the ratio would flatter.
    """

    what: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    at_least: float
    aim: float


@dataclass(frozen=True)
class Reached:
    """What was measured for a target."""

    target: Target
    ratio: Spread | None
    """`None` where one of the two did not take part."""

    @property
    def verdict(self) -> str:
        """`aim met`, `met`, `not met` or `not measured`."""
        if self.ratio is None:
            return "not measured"
        if self.ratio.median >= self.target.aim:
            return "aim met"
        return "met" if self.ratio.median >= self.target.at_least else "not met"


TARGETS = (
    Target("worker : FastStream, one process each", ("worker",), ("faststream",), 12, 20),
    Target(
        "worker : FastStream, as many processes as pay for each",
        ("worker", "worker-2"),
        ("faststream", "faststream-2"),
        8,
        12,
    ),
    Target("worker : handler that only publishes an event", ("worker",), ("nothing",), 2, 4),
    Target(
        "worker with a transaction per command : FastStream",
        ("worker-single",),
        ("faststream",),
        1.5,
        2,
    ),
    Target("worker, 2 processes : 1 process", ("worker-2",), ("worker",), 1.1, 1.4),
    Target("worker, updates and deletes : creates", ("worker-change",), ("worker",), 0.6, 0.8),
)


def reached(target: Target, speeds: Speeds) -> Reached:
    """The target's ratio, pair by pair in each round."""
    above, below = _best(target.above, speeds), _best(target.below, speeds)
    if above is None or below is None or not all(speeds.get(name) for name in target.below):
        return Reached(target, None)
    pairs = ratios(speeds[above], speeds[below])
    return Reached(target, Spread.of(pairs) if pairs else None)


def _best(names: tuple[str, ...], speeds: Speeds) -> str | None:
    present = [name for name in names if speeds.get(name)]
    return max(present, key=lambda name: Spread.of([*speeds[name].values()]).median, default=None)
