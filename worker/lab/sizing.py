"""Pools of the wrong size: judged last, when no other cause explains the waits."""

from __future__ import annotations

from collections.abc import Sequence

from worker.lab.causes import leak, sizes_of, slow_queries
from worker.lab.findings import Diagnosis
from worker.lab.limits import limit_of
from worker.lab.repeats import Repeats
from worker.lab.results import About
from worker.lab.units import counted, show_seconds

UNUSED_SHARE = 0.5
COSTLY_HOLD = 1.5


def too_small(groups: Sequence[Repeats], about: About) -> Diagnosis | None:
    """Checkouts wait although the database could serve more of them."""
    found = [each for each in groups if _is_too_small(each, groups, about)]
    if not found:
        return None
    worst = max(found, key=lambda each: each.wait.p99)
    lost = f", {worst.timeouts} timed out" if worst.timeouts else ""
    return Diagnosis(
        name="pool-too-small",
        words=f"With {counted(worst.setting.connections, 'connection')} a checkout waited "
        f"{show_seconds(worst.wait.p99)} (p99){lost}, and all connections were busy while the "
        "database was not",
        mend="Raise pool_size to the recommended size, or hold connections for less long.",
        pool_sizes=sizes_of(found),
    )


def _is_too_small(group: Repeats, groups: Sequence[Repeats], about: About) -> bool:
    if limit_of(group, about) != "pool" or leak([group]) or slow_queries([group]):
        return False
    if group.setting.load == "closed":  # its clients always wait: only a bigger pool can tell
        beside_arrivals = any(each.setting.load == "open" for each in groups)
        return not beside_arrivals and any(
            each.throughput_interval.low > group.throughput_interval.high
            for each in groups
            if _is_sibling(each, group) and _is_bigger(each, group)
        )
    late = group.wait.p99 > about.objective.wait_p99_seconds
    return bool(group.timeouts or group.dropped or late)


def too_big(groups: Sequence[Repeats]) -> Diagnosis | None:
    """Connections that do nothing, or that only make each other slower."""
    unused = [each for each in groups if _is_unused(each)]
    costly = [each for each in groups if any(_costs(each, other) for other in groups)]
    found = [each for each in groups if each in unused or each in costly]
    if not found:
        return None
    worst = max(found, key=lambda each: each.setting.connections)
    if worst in costly:
        words = (
            f"{worst.setting.connections} connections did no more work than fewer of them, and "
            f"held each one longer ({show_seconds(worst.hold.mean)} on average)"
        )
    else:
        most = max(point.pool.busy_max for point in worst.points)
        words = f"Of {worst.setting.pool_size} connections never more than {most} were in use"
    return Diagnosis(
        name="pool-too-big",
        words=words,
        mend="Lower pool_size to the recommended size: idle connections cost the server memory, "
        "busy ones cost each other time, and other processes may need them.",
        pool_sizes=sizes_of(found),
    )


def _is_unused(group: Repeats) -> bool:
    most = max(point.pool.busy_max for point in group.points)
    return group.setting.pool_size > 2 and most <= UNUSED_SHARE * group.setting.pool_size


def _costs(group: Repeats, smaller: Repeats) -> bool:
    """Whether a smaller pool does as much at two thirds of the time that a connection is held."""
    if not _is_sibling(group, smaller) or not _is_bigger(group, smaller):
        return False
    no_gain = group.throughput_interval.low <= smaller.throughput_interval.high
    slower = group.hold.mean >= COSTLY_HOLD * smaller.hold.mean
    fell = group.throughput_interval.high < smaller.throughput_interval.low
    return group.is_full and ((no_gain and slower) or fell) and not smaller.dropped


def _is_sibling(one: Repeats, other: Repeats) -> bool:
    """Whether the two differ in nothing but the pool, and the lanes and clients that follow it."""
    same = {"pool_size": 1, "max_overflow": 0, "lanes": None, "clients": None}
    return one.setting.model_copy(update=same) == other.setting.model_copy(update=same)


def _is_bigger(one: Repeats, other: Repeats) -> bool:
    return one.setting.connections > other.setting.connections
