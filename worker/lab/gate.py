"""Limits that a result must keep, for CI."""

from __future__ import annotations

from collections.abc import Callable

from worker.core.errors import Misconfigured
from worker.lab.checks import check_point, complete, repeats
from worker.lab.durations import Model
from worker.lab.findings import CheckResult
from worker.lab.measured import Point
from worker.lab.repeats import by_setting
from worker.lab.results import Result
from worker.lab.units import show_number, show_seconds


class GateLimits(Model):
    """The limits; `None` is not looked at."""

    wait_p99_seconds: float | None = None
    latency_p99_seconds: float | None = None
    timeouts: int | None = None
    failed: int | None = None
    dropped: int | None = None
    throughput_per_second: float | None = None


class GateVerdict(Model):
    """One limit, held against one point; or a check of a point or of the run that failed."""

    limit: str
    pool_size: int | None
    max_overflow: int | None
    repeat: int | None
    value: float | None
    bound: float | None
    kept: bool
    words: str


_MEASURED: dict[str, tuple[str, Callable[[Point], float], Callable[[float], str]]] = {
    "wait_p99_seconds": ("p99 of the wait", lambda point: point.wait.seconds.p99, show_seconds),
    "latency_p99_seconds": (
        "p99 of the latency",
        lambda point: point.latency_seconds.p99,
        show_seconds,
    ),
    "timeouts": ("timeouts", lambda point: point.wait.timeouts, show_number),
    "failed": ("work that failed", lambda point: point.load.failed, show_number),
    "dropped": ("work never started", lambda point: point.load.dropped, show_number),
    "throughput_per_second": (
        "throughput per second",
        lambda point: point.throughput_per_second,
        show_number,
    ),
}
_LEAST = frozenset({"throughput_per_second"})
"""Limits from below; all others are limits from above."""


def judge(result: Result, limits: GateLimits, *, pool_size: int | None = None) -> list[GateVerdict]:
    """Hold every point, or those of one pool size, against the limits.

    A check that fails counts as a limit that was not kept: a number that cannot be trusted proves
    nothing. Raises `Misconfigured` where there is no point to judge.
    """
    points = [point for point in result.points if pool_size in (None, point.setting.pool_size)]
    if not points:
        sizes = sorted({point.setting.pool_size for point in result.points})
        raise Misconfigured(
            f"The result has no point with pool size {pool_size}, only: "
            f"{', '.join(map(str, sizes)) or 'none at all'}"
        )
    bounds = limits.model_dump(exclude_none=True)
    verdicts = [_held(point, name, bound) for point in points for name, bound in bounds.items()]
    asked: list[tuple[Point | None, CheckResult]] = [
        *((point, check) for point in points for check in check_point(point)),
        *((None, check) for check in (complete(result), repeats(by_setting(points)))),
    ]
    return verdicts + [_failed(point, check) for point, check in asked if not check.passed]


def _held(point: Point, name: str, bound: float) -> GateVerdict:
    what, measured, show = _MEASURED[name]
    value = float(measured(point))
    kept = value >= bound if name in _LEAST else value <= bound
    side = "at least" if name in _LEAST else "at most"
    return GateVerdict(
        limit=name,
        pool_size=point.setting.pool_size,
        max_overflow=point.setting.max_overflow,
        repeat=point.repeat,
        value=value,
        bound=bound,
        kept=kept,
        words=f"{_named(point)}: {what} {show(value)}, limit {side} {show(bound)}",
    )


def _failed(point: Point | None, check: CheckResult) -> GateVerdict:
    return GateVerdict(
        limit=f"check:{check.name}",
        pool_size=point.setting.pool_size if point else None,
        max_overflow=point.setting.max_overflow if point else None,
        repeat=point.repeat if point else None,
        value=check.value,
        bound=check.bound,
        kept=False,
        words=f"{_named(point)}: the check {check.name} failed: {check.words}",
    )


def _named(point: Point | None) -> str:
    return f"{point.setting}, repeat {point.repeat + 1}" if point else "the run"
