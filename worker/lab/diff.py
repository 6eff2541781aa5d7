"""Two results compared, setting by setting, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from scipy import stats

from worker.core.errors import Misconfigured
from worker.lab.durations import Model
from worker.lab.findings import Interval
from worker.lab.repeats import CONFIDENCE, Repeats, by_setting
from worker.lab.results import Result
from worker.lab.setting import Setting
from worker.lab.units import show_number, show_seconds

Metric = Literal["throughput", "wait p99", "latency p99", "hold mean"]
TELLABLE_SECONDS = 0.001
"""Differences of times below this are noise of the event loop, whatever the intervals say."""


class Difference(Model):
    """One number of one setting, before and after."""

    setting: Setting
    metric: Metric
    before: float
    after: float
    change: float | None
    """(after - before) / before; `None` where before is 0."""
    interval: Interval
    """Of after - before, in the unit of the metric: per second, or seconds."""
    verdict: Literal["better", "worse", "no difference"]
    """A difference only where the interval of 95 % leaves 0 out."""
    words: str


class _Side(NamedTuple):
    value: float
    interval: Interval


def compare(before: Result, after: Result) -> list[Difference]:
    """All settings that both have; raises `Misconfigured` where there is none."""
    old = {each.setting: each for each in by_setting(before.points)}
    new = {each.setting: each for each in by_setting(after.points)}
    both = [setting for setting in old if setting in new]
    if not both:
        raise Misconfigured(
            "The two results have no setting in common (pool size, overflow, lanes, group size, "
            "load and path), so nothing can be compared. Run both with the same scenario and "
            "matrix"
        )
    return [
        difference for setting in both for difference in _differences(old[setting], new[setting])
    ]


def _differences(before: Repeats, after: Repeats) -> Iterator[Difference]:
    yield _throughput(before, after)
    for metric, old, new in (
        ("wait p99", _wait(before), _wait(after)),
        ("latency p99", _latency(before), _latency(after)),
        ("hold mean", _hold(before), _hold(after)),
    ):
        yield _time(before.setting, metric, old, new)  # type: ignore[arg-type]


def _throughput(before: Repeats, after: Repeats) -> Difference:
    """Welch's t interval of the difference of two means (scipy), over the batch means of both."""
    old, new = _batches(before), _batches(after)
    change = after.throughput - before.throughput
    interval = Interval(low=change, high=change)
    if len(old) > 1 and len(new) > 1 and len({*old, *new}) > 1:
        test = stats.ttest_ind(new, old, equal_var=False)
        low, high = test.confidence_interval(CONFIDENCE)
        interval = Interval(low=float(low), high=float(high))
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    if interval.low > 0 or interval.high < 0:
        verdict = "better" if change > 0 else "worse"
    sides = f"{show_number(before.throughput)}/s, then {show_number(after.throughput)}/s"
    return Difference(
        setting=before.setting,
        metric="throughput",
        before=before.throughput,
        after=after.throughput,
        change=_share(before.throughput, after.throughput),
        interval=interval,
        verdict=verdict,
        words=f"{sides}: {show_number(interval.low)} to {show_number(interval.high)}/s more",
    )


def _batches(group: Repeats) -> Sequence[float]:
    seconds = [sample.throughput_per_second for point in group.points for sample in point.samples]
    return seconds or [point.throughput_per_second for point in group.points]


def _wait(group: Repeats) -> _Side:
    return _Side(group.wait.p99, group.wait_p99_interval)


def _latency(group: Repeats) -> _Side:
    return _Side(group.latency.p99, group.latency_p99_interval)


def _hold(group: Repeats) -> _Side:
    holds = group.hold
    error = holds.deviation / max(holds.count, 1) ** 0.5 * float(stats.norm.ppf(0.975))
    return _Side(holds.mean, Interval(low=holds.mean - error, high=holds.mean + error))


def _time(setting: Setting, metric: Metric, before: _Side, after: _Side) -> Difference:
    """The widest difference that the two intervals allow: never too narrow."""
    interval = Interval(
        low=after.interval.low - before.interval.high,
        high=after.interval.high - before.interval.low,
    )
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    if interval.low > TELLABLE_SECONDS:
        verdict = "worse"
    elif interval.high < -TELLABLE_SECONDS:
        verdict = "better"
    return Difference(
        setting=setting,
        metric=metric,
        before=before.value,
        after=after.value,
        change=_share(before.value, after.value),
        interval=interval,
        verdict=verdict,
        words=f"{show_seconds(before.value)}, then {show_seconds(after.value)}: "
        f"{show_seconds(interval.low)} to {show_seconds(interval.high)} more",
    )


def _share(before: float, after: float) -> float | None:
    return (after - before) / before if before else None
