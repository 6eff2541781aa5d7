"""Names the troubles that a measurement shows, causes before effects: the pool's size comes last.

A pool that is exhausted by a leak, by a lock or by one slow query in a hundred is not called too
small: more connections would only hide the cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.lab.causes import (
    CAUSES,
    generator_faults,
    has_tail,
    is_locked,
    leaked,
    loop_is_busy,
    machine_is_busy,
    sizes_of,
)
from worker.lab.findings import Diagnosis, Limit
from worker.lab.repeats import Repeats, mean
from worker.lab.results import About, Machine
from worker.lab.units import counted, show_seconds

UNUSED_SHARE = 0.5
COSTLY_HOLD = 1.5
MACHINE_FULL = 0.9
CROWDED_SHARE = 0.1
"""Share of checkouts that wait, from which on the pool holds work back."""
BROKER_BACKLOG = 0.5
"""Commands ready in the queue, as a share of a second's throughput, that speak for the broker."""


def diagnose(groups: Sequence[Repeats], about: About) -> tuple[Diagnosis, ...]:
    """All troubles that are found."""
    found = [cause(groups) for cause in CAUSES]
    found += [_too_small(groups, about), _too_big(groups)]
    return tuple(each for each in found if each is not None)


def limit_of(group: Repeats, about: About) -> Limit:
    """The one resource that is used up; `offered load` where none is."""
    looks: tuple[tuple[Limit, bool], ...] = (
        ("busy machine", machine_is_busy(group)),
        ("generator", bool(generator_faults(group))),
        ("locks", is_locked(group)),
        ("event loop", loop_is_busy(group)),
        ("database CPU", database_is_full(group, about.machine)),
        ("pool", _is_crowded(group)),
        ("broker", _broker_holds_back(group)),
    )
    return next((limit for limit, holds in looks if holds), "offered load")


def _is_crowded(group: Repeats) -> bool:
    """Whether the pool was full, or a good part of the checkouts found no free connection."""
    waited = mean(point.wait.waited_share for point in group.points)
    return group.is_full or waited >= CROWDED_SHARE


def database_is_full(group: Repeats, machine: Machine) -> bool:
    """Whether PostgreSQL has used up the CPU: its own, or what others leave of a shared machine."""
    database = mean(point.server.cpu_cores or 0.0 for point in group.points)
    others = sum(
        mean(part.cpu_cores or 0.0 for point in group.points if (part := getattr(point, name)))
        for name in ("worker", "generator", "broker")
    )
    full = database + others >= MACHINE_FULL * machine.cores
    return machine.database_is_local and full and 0 < database >= others / 2


def _broker_holds_back(group: Repeats) -> bool:
    """Commands wait in the queue though connections are free."""
    ready = mean(point.broker.ready_mean for point in group.points if point.broker)
    return ready > BROKER_BACKLOG * group.throughput > 0


def _too_small(groups: Sequence[Repeats], about: About) -> Diagnosis | None:
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
        mend="Raise pool_size, or hold connections for less long.",
        pool_sizes=sizes_of(found),
    )


def _is_too_small(group: Repeats, groups: Sequence[Repeats], about: About) -> bool:
    if limit_of(group, about) != "pool" or leaked(group) or has_tail(group):
        return False
    if group.setting.load == "closed":  # its clients always wait: only a bigger pool can tell
        alone = all(each.setting.load == "closed" for each in groups)
        more = [each for each in groups if _is_bigger_sibling(each, group)]
        own = group.throughput_interval
        return alone and any(each.throughput_interval.low > own.high for each in more)
    return bool(group.lost or group.wait.p99 > about.objective.wait_p99_seconds)


def _too_big(groups: Sequence[Repeats]) -> Diagnosis | None:
    """Connections that do nothing, or that only make each other slower."""
    costly = [each for each in groups if any(_costs(each, other) for other in groups)]
    found = [each for each in groups if each in costly or _is_unused(each)]
    if not found:
        return None
    worst = max(found, key=lambda each: each.setting.connections)
    words = f"Of {worst.setting.pool_size} connections never more than {_most(worst)} were in use"
    if worst in costly:
        words = (
            f"{worst.setting.connections} connections did no more work than fewer of them, and "
            f"held each one longer ({show_seconds(worst.hold.mean)} on average)"
        )
    return Diagnosis(
        name="pool-too-big",
        words=words,
        mend="Lower pool_size: idle connections cost the server memory, "
        "busy ones cost each other time, and other processes may need them.",
        pool_sizes=sizes_of(found),
    )


def _most(group: Repeats) -> int:
    return max(point.pool.busy_max for point in group.points)


def _is_unused(group: Repeats) -> bool:
    size = group.setting.pool_size
    return size > 2 and _most(group) <= UNUSED_SHARE * size


def _costs(group: Repeats, smaller: Repeats) -> bool:
    """Whether a smaller pool does as much at two thirds of the time that a connection is held."""
    if not group.is_full or smaller.dropped or not _is_bigger_sibling(group, smaller):
        return False
    own, other = group.throughput_interval, smaller.throughput_interval
    slower = group.hold.mean >= COSTLY_HOLD * smaller.hold.mean
    return (own.low <= other.high and slower) or own.high < other.low


def _is_bigger_sibling(one: Repeats, other: Repeats) -> bool:
    """Whether the two differ in nothing but the pool, and the lanes and clients that follow it."""
    same = {"pool_size": 1, "max_overflow": 0, "lanes": None, "clients": None}
    alike = one.setting.model_copy(update=same) == other.setting.model_copy(update=same)
    return alike and one.setting.connections > other.setting.connections
