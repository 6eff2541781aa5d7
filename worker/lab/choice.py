"""Chooses the smallest pool that does the most work and keeps the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.lab.findings import ScalabilityFit
from worker.lab.repeats import Repeats
from worker.lab.results import About, Result
from worker.lab.units import show_seconds

KEEPS_UP = 0.97
"""Share of the intended rate from which on a setting keeps up with it."""


class NoRecommendation(Exception):
    """The measurement does not allow one; says why, and what to do instead."""


@dataclass(frozen=True)
class Comparison:
    """The settings that are compared: they differ in the pool, and in the lanes that follow it."""

    work: Sequence[Repeats]
    """Those that show how much work a pool can do."""
    waits: Sequence[Repeats]
    """Those that show how long it makes arrivals wait; empty under a closed load alone, whose
    clients always wait."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and out of what."""

    comparison: Comparison
    best: Repeats
    """The one that does the most work."""
    chosen: Repeats
    left_out: Sequence[tuple[Repeats, str]]
    """The smaller ones, each with what is wrong with it."""


def choose(result: Result, groups: Sequence[Repeats], fit: ScalabilityFit | None) -> Choice:
    """Choose; raises `NoRecommendation`."""
    _refuse_what_cannot_be_trusted(result, fit)
    comparison = _comparison(groups)
    best = max(comparison.work, key=lambda each: each.throughput)
    enough = {
        each.setting.connections
        for each in comparison.work
        if each.throughput_interval.overlaps(best.throughput_interval)
    }
    chosen, left_out = _smallest(comparison, enough, result.about)
    _refuse_a_wait_that_no_model_explains(chosen)
    return Choice(comparison, best, chosen, left_out)


def _refuse_what_cannot_be_trusted(result: Result, fit: ScalabilityFit | None) -> None:
    for check in result.checks:
        if not check.passed and check.name == "complete":
            raise NoRecommendation(f"The run was {check.words}.")
    if fit is not None and not fit.agrees:
        raise NoRecommendation(
            f"The scalability law does not describe the throughput: {fit.words}. Something else "
            "than the pool changed between the sizes; measure again, with more repeats."
        )


def _comparison(groups: Sequence[Repeats]) -> Comparison:
    """The highest rate that any pool keeps up with, and the closed load where there is one."""
    closed = [each for each in groups if each.setting.load == "closed"]
    opened = [each for each in groups if each.setting.load == "open"]
    rates = sorted({each.setting.rate_per_second or 0.0 for each in opened}, reverse=True)
    at_rate = [_at_rate(opened, rate) for rate in rates]
    waits = next((found for found in at_rate if any(map(_keeps_up, found))), [])
    if not waits and at_rate and not closed:
        waits = at_rate[-1]
    waits = _one_group_size(waits)
    work = _one_group_size(closed) or waits
    if len({each.setting.connections for each in work}) < 2:
        raise NoRecommendation(
            "One pool size alone was measured, so there is nothing to compare. "
            "`worker lab sweep` measures several."
        )
    return Comparison(work, waits)


def _at_rate(groups: Sequence[Repeats], rate: float) -> list[Repeats]:
    return [each for each in groups if each.setting.rate_per_second == rate]


def _keeps_up(group: Repeats) -> bool:
    return group.throughput >= KEEPS_UP * (group.setting.rate_per_second or 0)


def _one_group_size(groups: Sequence[Repeats]) -> list[Repeats]:
    """Those with the group size and path that do the most; others answer another question."""
    if not groups:
        return []
    best = max(groups, key=lambda each: each.throughput).setting
    same = (best.path, best.group_size)
    return [each for each in groups if (each.setting.path, each.setting.group_size) == same]


def _smallest(
    comparison: Comparison, enough: set[int], about: About
) -> tuple[Repeats, list[tuple[Repeats, str]]]:
    """The smallest pool that is good enough, and why each smaller one is not."""
    left_out: list[tuple[Repeats, str]] = []
    for each in comparison.waits or comparison.work:
        fault = _fault(each, enough, about, judge_wait=bool(comparison.waits))
        if fault is None:
            return each, left_out
        left_out.append((each, fault))
    told = "; ".join(f"{named(each)}: {fault}" for each, fault in left_out)
    raise NoRecommendation(
        f"No pool that was measured is good enough. {told}. "
        "Measure other sizes, a lower rate, or allow a longer wait."
    )


def _fault(group: Repeats, enough: set[int], about: About, *, judge_wait: bool) -> str | None:
    if group.setting.connections not in enough:
        return "does less work"
    if group.failed_checks:
        return f"failed a check ({group.failed_checks[0]})"
    if not judge_wait:
        return None
    if group.timeouts or group.dropped:
        return f"{group.timeouts} checkouts timed out, {group.dropped} arrivals were dropped"
    allowed = about.objective.wait_p99_seconds * (1 - about.objective.headroom)
    if group.wait.p99 > allowed:
        return f"waits {show_seconds(group.wait.p99)} at p99"
    return None


def _refuse_a_wait_that_no_model_explains(chosen: Repeats) -> None:
    told = [
        prediction
        for point in chosen.points
        for prediction in point.predictions
        if prediction.model == "G/G/c"
    ]
    wrong = [prediction for prediction in told if not prediction.agrees]
    if len(wrong) * 2 > len(told):
        first = wrong[0]
        raise NoRecommendation(
            f"{named(chosen)} would be the one, but its wait is not the queue's: "
            f"{show_seconds(first.p99_measured_seconds)} measured at p99, "
            f"{show_seconds(first.p99_low_seconds)} to {show_seconds(first.p99_high_seconds)} "
            "expected of its holds. Something else delays checkouts: see the event loop's lag and "
            "the time to connect."
        )


def named(group: Repeats) -> str:
    """The pool as people write it: `8+4`."""
    return f"{group.setting.pool_size}+{group.setting.max_overflow}"
