"""Chooses the smallest pool that does the most work and keeps the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.lab.causes import CHURN_SHARE, churn_of
from worker.lab.findings import ScalabilityFit
from worker.lab.plan import KEEPS_UP
from worker.lab.repeats import Repeats
from worker.lab.results import About, Result
from worker.lab.units import show_seconds, show_share


class NoRecommendation(Exception):
    """The measurement does not allow one; says why, and what to do instead."""


@dataclass(frozen=True)
class SizeChoice:
    """What was chosen, and out of what."""

    best: Repeats
    """The one that does the most work."""
    chosen: Repeats
    left_out: Sequence[tuple[Repeats, str]]
    """The smaller ones, each with what is wrong with it."""
    judges_wait: bool
    """Not under a closed load, whose clients always wait."""


def choose(result: Result, groups: Sequence[Repeats], fit: ScalabilityFit | None) -> SizeChoice:
    """Choose; raises `NoRecommendation`."""
    for check in result.checks:
        if not check.passed and check.name == "complete":
            raise NoRecommendation(f"The run was {check.words}.")
    if fit is not None and not fit.agrees:
        raise NoRecommendation(
            f"The scalability law does not describe the throughput: {fit.words}. Something else "
            "than the pool changed between the sizes; measure again, with more repeats."
        )
    judges_wait = any(each.setting.load == "open" for each in groups)
    compared = _compared(groups)
    best = max(compared, key=lambda each: each.throughput)
    left_out: list[tuple[Repeats, str]] = []
    for each in compared:
        fault = _fault(each, best, result.about, judges_wait=judges_wait)
        if fault is None:
            _refuse_a_wait_that_no_model_explains(each)
            return SizeChoice(best, each, left_out, judges_wait)
        left_out.append((each, fault))
    told = "; ".join(f"{each.pool}: {fault}" for each, fault in left_out)
    raise NoRecommendation(
        f"No pool that was measured is good enough. {told}. "
        "Measure other sizes, a lower rate, or allow a longer wait."
    )


def _compared(groups: Sequence[Repeats]) -> list[Repeats]:
    """The settings that differ in the pool, and in the lanes that follow it; small ones first.

    They are at the highest rate that any pool keeps up with, or else at the lowest of all; those of
    a closed load where it is alone. And of the group size and path that do the most: others answer
    another question.
    """
    opened = [each for each in groups if each.setting.load == "open"]
    found = list(groups)
    for rate in sorted({each.setting.rate_per_second or 0.0 for each in opened}, reverse=True):
        found = [each for each in opened if each.setting.rate_per_second == rate]
        if any(map(keeps_up, found)):
            break
    best = max(found, key=lambda each: each.throughput, default=None)
    same = [each for each in found if best and each.is_alike(best)]
    if len({each.setting.connections for each in same}) < 2:
        raise NoRecommendation(
            "One pool size alone was measured, so there is nothing to compare. "
            "`worker lab sweep` measures several."
        )
    # Of pools with as many connections the one that keeps more of them open comes first.
    return sorted(same, key=lambda each: (each.setting.connections, -each.setting.pool_size))


def keeps_up(group: Repeats) -> bool:
    """Whether it does all the work that arrives: what chance has sent, not the rate on paper."""
    return group.throughput >= KEEPS_UP * group.arrived_per_second


def _fault(group: Repeats, best: Repeats, about: About, *, judges_wait: bool) -> str | None:
    """What is wrong with it: it must do what is offered, or what cannot be told from the best."""
    offered = group.setting.load == "open" and keeps_up(group)
    if not offered and not group.throughput_interval.overlaps(best.throughput_interval):
        return "does less work"
    if group.lost:
        return "lost work" if judges_wait else "checkouts timed out"
    allowed = about.objective.wait_p99_seconds * (1 - about.objective.headroom)
    if judges_wait and group.wait.p99 > allowed:
        return f"waits {show_seconds(group.wait.p99)} at p99"
    if churn_of(group) >= CHURN_SHARE:
        return f"opens a connection for {show_share(churn_of(group))} of the checkouts"
    if group.failed_checks:
        return f"failed a check ({group.failed_checks[0].words})"
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
            f"{chosen.pool} would be the one, but its wait is not the queue's: "
            f"{show_seconds(first.p99_measured_seconds)} measured at p99, "
            f"{show_seconds(first.p99_low_seconds)} to {show_seconds(first.p99_high_seconds)} "
            "expected of its holds. Something else delays checkouts: see the event loop's lag and "
            "the time to connect."
        )
