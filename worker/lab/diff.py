"""Two results compared, setting by setting, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from scipy import stats

from worker.core.errors import Misconfigured
from worker.lab.durations import Model
from worker.lab.findings import Interval
from worker.lab.repeats import CONFIDENCE, Repeats, by_setting
from worker.lab.results import Result
from worker.lab.setting import Setting
from worker.lab.units import show_number, show_seconds

Verdict = Literal["better", "worse", "no difference"]
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
    verdict: Verdict
    """A difference only where the interval of 95 % leaves 0 out."""
    words: str


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
    for metric, value, interval in TIMES:
        old, new = interval(before), interval(after)
        # The widest difference that the two intervals allow: never too narrow.
        widest = Interval(low=new.low - old.high, high=new.high - old.low)
        yield _difference(
            before.setting,
            metric,
            (value(before), value(after)),
            widest,
            more_is="worse",
            least=TELLABLE_SECONDS,
            show=show_seconds,
        )


def _hold_interval(group: Repeats) -> Interval:
    holds = group.hold
    error = holds.deviation / max(holds.count, 1) ** 0.5 * float(stats.norm.ppf(0.975))
    return Interval(low=holds.mean - error, high=holds.mean + error)


Time = tuple[Metric, Callable[[Repeats], float], Callable[[Repeats], Interval]]
TIMES: tuple[Time, ...] = (
    ("wait p99", lambda each: each.wait.p99, lambda each: each.wait_p99_interval),
    ("latency p99", lambda each: each.latency.p99, lambda each: each.latency_p99_interval),
    ("hold mean", lambda each: each.hold.mean, _hold_interval),
)


def _throughput(before: Repeats, after: Repeats) -> Difference:
    """Welch's t interval of the difference of two means (scipy), over the batch means of both."""
    old, new = before.batch_means, after.batch_means
    change = after.throughput - before.throughput
    interval = Interval(low=change, high=change)
    if len(old) > 1 and len(new) > 1 and len({*old, *new}) > 1:
        test = stats.ttest_ind(new, old, equal_var=False)
        low, high = test.confidence_interval(CONFIDENCE)
        interval = Interval(low=float(low), high=float(high))
    values = (before.throughput, after.throughput)
    return _difference(
        before.setting,
        "throughput",
        values,
        interval,
        more_is="better",
        least=0,
        show=lambda value: f"{show_number(value)}/s",
    )


def _difference(
    setting: Setting,
    metric: Metric,
    values: tuple[float, float],
    interval: Interval,
    *,
    more_is: Literal["better", "worse"],
    least: float,
    show: Callable[[float], str],
) -> Difference:
    before, after = values
    verdict: Verdict = "no difference"
    if interval.low > least:
        verdict = more_is
    elif interval.high < -least:
        verdict = "worse" if more_is == "better" else "better"
    return Difference(
        setting=setting,
        metric=metric,
        before=before,
        after=after,
        change=(after - before) / before if before else None,
        interval=interval,
        verdict=verdict,
        words=f"{show(before)}, then {show(after)}: "
        f"{show(interval.low)} to {show(interval.high)} more",
    )
