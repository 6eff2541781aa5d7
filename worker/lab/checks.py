"""What the lab asks of its own measurement before it believes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from worker.lab.findings import CheckResult
from worker.lab.measured import Point
from worker.lab.repeats import Repeats
from worker.lab.results import Result
from worker.lab.units import counted, show_number, show_seconds, show_share

LITTLE_BOUND = 0.05
LITTLE_FLOOR_CONNECTIONS = 0.05
"""Below this the difference is one of rounding, not of bookkeeping."""
THROUGHPUT_TREND_BOUND = 0.2
"""Change of the throughput from the begin to the end of the window, as a share of its median."""
DEMAND_TREND_BOUND = 0.5
"""Change of the demand, as a share of the connections: close to saturation a queue wanders."""
TREND_SIGNIFICANCE = 0.05
LEAST_SAMPLES = 5
LATE_BOUND = 0.01
GENERATOR_CPU_BOUND = 0.9
REPEATS_BOUND = 0.1
"""Half of the throughput's interval, as a share of it."""


def check_point(point: Point) -> tuple[CheckResult, ...]:
    """All checks of one point."""
    return (littles_law(point), steady_state(point), generator_headroom(point))


def check_run(result: Result, groups: Sequence[Repeats]) -> tuple[CheckResult, ...]:
    """The checks of the run as a whole."""
    return (complete(result), repeats(groups))


def littles_law(point: Point) -> CheckResult:
    """L = lambda W: connections busy on average = checkouts a second x time that each is held.

    The left side is read off the clock, the right side is added up from the holds; both include
    the opening of connections. Where they differ, one of the two was measured wrongly. Source:
    J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations Research 9, 1961.
    """
    rate, held = point.hold.seconds.count / point.measured_seconds, point.hold.seconds.mean
    expected, busy = rate * held, point.pool.busy_mean
    gap = abs(busy - expected)
    if busy > expected:
        gap = max(gap - _handed_over(point, rate), 0.0)
    share = gap / max(busy, expected) if gap else 0.0
    passed = share <= LITTLE_BOUND or gap <= LITTLE_FLOOR_CONNECTIONS
    return CheckResult(
        name="littles-law",
        passed=passed,
        value=share,
        bound=LITTLE_BOUND,
        words=f"{show_number(busy)} connections were busy on average; "
        f"{show_number(rate)} checkouts a second x {show_seconds(held)} "
        f"make {show_number(expected)}, {show_share(share)} apart"
        + ("" if passed else ": leaked connections, holds longer than the window, or a fault"),
    )


def _handed_over(point: Point, rate: float) -> float:
    """Places that are busy before their holds begin: handed to a task that has not woken yet.

    It wakes when the event loop comes round to it, so by Little's law too these are at most the
    checkouts that waited x the loop's lag.
    """
    lag = point.worker.loop_lag_seconds if point.worker else None
    return rate * point.wait.waited_share * lag.mean if lag else 0.0


def steady_state(point: Point) -> CheckResult:
    """No trend in the throughput, nor in the number of connections asked for.

    Kendall's tau says whether there is a trend (Mann 1945), the slope of Theil and Sen how much it
    changed over the window; both must speak for one, since a short window has many chance trends.
    """
    if len(point.samples) < LEAST_SAMPLES:
        return CheckResult(
            name="steady-state",
            passed=True,
            words=f"not looked at: {len(point.samples)} samples, {LEAST_SAMPLES} are needed",
        )
    throughput = [sample.throughput_per_second for sample in point.samples]
    demand = [sample.busy + sample.waiting for sample in point.samples]
    level = float(np.median(throughput)) or max(throughput)
    trends = (
        _Trend("throughput", _change(throughput) / (level or 1.0), THROUGHPUT_TREND_BOUND),
        _Trend(
            "demand for connections",
            _change(demand) / point.setting.connections,
            DEMAND_TREND_BOUND,
        ),
    )
    worst = max(trends, key=lambda trend: abs(trend.change) / trend.bound)
    passed = abs(worst.change) <= worst.bound
    direction = "rose" if worst.change > 0 else "fell"
    size = show_share(abs(worst.change))
    if worst.what != "throughput":
        size = counted(abs(worst.change) * point.setting.connections, "connection")
    return CheckResult(
        name="steady-state",
        passed=passed,
        value=abs(worst.change),
        bound=worst.bound,
        words="no trend in throughput or demand"
        if passed
        else f"the {worst.what} {direction} by {size} within the window: "
        "the warm-up was too short, or the load is more than this pool can serve",
    )


class _Trend(NamedTuple):
    what: str
    change: float
    bound: float


def _change(values: Sequence[float]) -> float:
    """From the begin to the end of the window; 0 where chance explains it."""
    if len(set(values)) == 1:
        return 0.0
    at = np.arange(len(values))
    if stats.kendalltau(at, values).pvalue > TREND_SIGNIFICANCE:
        return 0.0
    return float(stats.theilslopes(values, at).slope) * (len(values) - 1)


def generator_headroom(point: Point) -> CheckResult:
    """The generator kept its own schedule: it did not become the system under test."""
    cpu, late = _generator_cpu(point), _late(point)
    passed = late <= LATE_BOUND and cpu <= GENERATOR_CPU_BOUND
    used = f", its process used {show_share(cpu)} of a core" if point.generator else ""
    blame = "something held the generator up, the waits are its own"
    if point.host is not None and was_kept_waiting(point):
        others, cores = show_number(point.host.others_cpu_cores), point.host.cores
        blame = f"the machine was busy with others, which used {others} of its {cores} cores"
    elif cpu > GENERATOR_CPU_BOUND:
        blame = "the generator could not keep up, the waits are its own"
    return CheckResult(
        name="generator-headroom",
        passed=passed,
        value=late,
        bound=LATE_BOUND,
        words=f"{show_share(late)} of the work was started late{used}"
        + ("" if passed else f": {blame}"),
    )


def was_kept_waiting(point: Point) -> bool:
    """Whether the generator was late because others had the machine's cores."""
    crowded = point.host is not None and point.host.is_taken_by_others
    return crowded and _late(point) > LATE_BOUND and _generator_cpu(point) <= GENERATOR_CPU_BOUND


def _late(point: Point) -> float:
    return point.load.late / point.load.intended if point.load.intended else 0.0


def _generator_cpu(point: Point) -> float:
    return point.generator.cpu_cores if point.generator else 0.0


def complete(result: Result) -> CheckResult:
    """The run came to its end."""
    cut = result.partial or any(point.partial for point in result.points)
    return CheckResult(
        name="complete",
        passed=not cut,
        words="stopped before its end: what was measured until then" if cut else "ran to its end",
    )


def repeats(groups: Sequence[Repeats]) -> CheckResult:
    """The throughput of each setting is known well enough to be compared.

    Of the settings with arrivals, where there are any: pools that were kept full beside them only
    draw the curve, which shows its own intervals.
    """
    compared = [each for each in groups if each.setting.load == "open"] or list(groups)
    if not compared:
        return CheckResult(name="repeats", passed=False, words="nothing was measured")
    where = max(compared, key=_uncertainty)
    fewest = min(len(each.points) for each in compared)
    return CheckResult(
        name="repeats",
        passed=_uncertainty(where) <= REPEATS_BOUND,
        value=_uncertainty(where),
        bound=REPEATS_BOUND,
        words=f"each setting was measured {counted(fewest, 'time')} or more; the throughput is "
        f"known within {show_share(_uncertainty(where))} at worst, with pool "
        f"{where.pool}",
        setting=where.setting,
    )


def _uncertainty(group: Repeats) -> float:
    """Half of the throughput's interval, as a share of it."""
    interval = group.throughput_interval
    return (interval.high - interval.low) / 2 / group.throughput if group.throughput else 0.0
