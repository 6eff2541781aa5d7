"""When work arrives. The standard library alone: the generator is to start at once.

Every arrival has its intended time, fixed beforehand and independent of any answer. Latency is
counted from there, so a stall shows in all that came meanwhile (no coordinated omission).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import count
from random import Random
from typing import Any, Literal


@dataclass(frozen=True)
class Schedule:
    """An open load: what the generator is told. Times are in seconds from the begin of the load."""

    arrivals: Literal["poisson", "constant", "burst"]
    rate_per_second: float
    warm_up_seconds: float
    measure_seconds: float
    seed: int
    ramp_to_per_second: float | None = None
    burst_size: int = 1
    burst_every_seconds: float = 1

    @classmethod
    def of(cls, load: Mapping[str, Any], *, seed: int) -> Schedule:
        """The schedule of a scenario's load."""
        named = {each.name: load[each.name] for each in fields(cls) if each.name in load}
        return cls(**named, seed=seed)

    def times(self) -> Iterator[float]:
        """The intended times, in order, until the end."""
        end = self.warm_up_seconds + self.measure_seconds
        for time in self._bursts() if self.arrivals == "burst" else self._stream():
            if time >= end:
                return
            yield time

    def _bursts(self) -> Iterator[float]:
        for number in count():
            for _ in range(self.burst_size):
                yield number * self.burst_every_seconds

    def _stream(self) -> Iterator[float]:
        """A unit-rate process, its time stretched so that the rate is as it should be."""
        random = Random(self.seed)  # noqa: S311 - to be repeated, not to be secret
        work = 0.0
        while True:
            work += random.expovariate(1) if self.arrivals == "poisson" else 1.0
            yield self._time_of(work)

    def _time_of(self, work: float) -> float:
        """When so many arrivals are expected: the inverse of the integral of the rate."""
        rate, warm = self.rate_per_second, self.warm_up_seconds
        ramp = self.ramp_to_per_second
        if ramp is None or ramp == rate or work <= rate * warm:
            return work / rate
        # From the warm-up on: work = rate·t + slope·t²/2, solved for t.
        beyond = work - rate * warm
        slope = (ramp - rate) / self.measure_seconds
        inner = rate * rate + 2 * slope * beyond
        if inner <= 0:
            return math.inf  # a falling rate that has come to nothing
        return warm + (math.sqrt(inner) - rate) / slope
