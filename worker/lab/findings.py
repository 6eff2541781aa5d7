"""What the lab concludes from what it measured: checks, models, diagnoses, a recommendation.

Pure values; the reasoning is in `checks`, `model`, `causes`, `sizing` and `recommend`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from worker.lab.durations import Model
from worker.lab.setting import Setting

Amount = Annotated[float, Field(allow_inf_nan=False)]


class Interval(Model):
    """A confidence interval, of 95 % where nothing else is said."""

    low: Amount
    high: Amount

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a value in common."""
        return self.low <= other.high and other.low <= self.high


class CheckResult(Model):
    """A question that the lab asks of its own measurement."""

    name: Literal["littles-law", "steady-state", "generator-headroom", "repeats", "complete"]
    passed: bool
    words: str
    """What was found, in a sentence."""
    value: Amount | None = None
    bound: Amount | None = None
    """What the value had to stay within."""
    setting: Setting | None = None
    """Of a check of the whole run: where it was the furthest out."""


class Prediction(Model):
    """What a queueing model says about the wait of a point, beside what was measured."""

    model: Literal["M/M/c", "G/G/c"]
    """`M/M/c`: Erlang C. `G/G/c`: a simulation that is fed with the measured holds."""
    servers: Annotated[int, Field(ge=1)]
    utilisation: Amount
    """Share of the connections that the load keeps busy; from 1 on there is no steady state."""
    mean_predicted_seconds: Amount
    mean_measured_seconds: Amount
    p99_predicted_seconds: Amount
    p99_measured_seconds: Amount
    p99_low_seconds: Amount
    p99_high_seconds: Amount
    """Between these the measurement agrees."""
    residual: Amount
    """(measured - predicted) of the p99, as a share of the larger of the two."""
    agrees: bool


class ScalabilityFit(Model):
    """The Universal Scalability Law, fitted to throughput over pool size."""

    contention: Amount
    """Sigma: the share of the work that is serial (locks, commit, one CPU). 0 to 1."""
    coherency: Amount
    """Kappa: what each further connection costs all others. 0 means it never gets worse."""
    single_throughput_per_second: Amount
    """Lambda: what one connection alone would do."""
    contention_interval: Interval
    coherency_interval: Interval
    peak_size: Amount | None = None
    """The pool size of highest throughput; `None` where the curve has no peak."""
    peak_throughput_per_second: Amount | None = None
    r_squared: Amount
    agrees: bool
    """Whether the curve is good enough to speak about the pool."""
    words: str


DiagnosisName = Literal[
    "leak",
    "pool-too-small",
    "pool-too-big",
    "slow-queries",
    "slow-commit",
    "connection-churn",
    "lock-contention",
    "busy-event-loop",
    "overloaded-generator",
    "busy-machine",
]
Limit = Literal[
    "pool",
    "database CPU",
    "locks",
    "event loop",
    "broker",
    "generator",
    "busy machine",
    "offered load",
]


class Diagnosis(Model):
    """A trouble that the measurement shows, by name."""

    name: DiagnosisName
    words: str
    """What was seen, with its numbers."""
    mend: str
    """What to do about it."""
    pool_sizes: tuple[int, ...] = ()
    """Where it was seen."""


class FleetLine(Model):
    """Whether so many processes with this pool fit the server."""

    replicas: Annotated[int, Field(ge=1)]
    connections: Annotated[int, Field(ge=0)]
    """replicas x (pool_size + max_overflow) + reserve"""
    fits: bool


class Recommendation(Model):
    """How big the pool should be, and why."""

    pool_size: Annotated[int, Field(ge=1)]
    max_overflow: Annotated[int, Field(ge=0)]
    pool_timeout_seconds: Amount
    lanes: Annotated[int, Field(ge=1)]
    prefetch: Annotated[int, Field(ge=1)]
    limited_by: Limit
    """What keeps throughput from growing now."""
    sentence: str
    reasons: tuple[str, ...]
    reserve: Annotated[int, Field(ge=0)] = 0
    """Connections of the server that are not for this pool: reserved ones, and those of others."""
    fleet: tuple[FleetLine, ...] = ()
    most_replicas: Annotated[int, Field(ge=0)] | None = None
    """As many processes as the server's `max_connections` leaves room for."""
    env: str
    """The same as lines for `.env`."""
    setting: Setting | None = None
    """The one that was measured and chosen; overflow and lanes of the advice may differ."""
