"""What keeps a setting from doing more."""

from __future__ import annotations

from worker.lab.causes import busy_machine, is_locked, loop_is_busy, overloaded_generator
from worker.lab.findings import Limit
from worker.lab.repeats import Repeats, mean
from worker.lab.results import About, Machine

MACHINE_FULL = 0.9
CROWDED_SHARE = 0.1
"""Share of checkouts that wait, from which on the pool holds work back."""
BROKER_BACKLOG = 0.5
"""Commands ready in the queue, as a share of a second's throughput, that speak for the broker."""


def limit_of(group: Repeats, about: About) -> Limit:
    """The one resource that is used up; `offered load` where none is."""
    looks: tuple[tuple[Limit, bool], ...] = (
        ("busy machine", busy_machine([group]) is not None),
        ("generator", overloaded_generator([group]) is not None),
        ("locks", is_locked(group)),
        ("event loop", loop_is_busy(group)),
        ("database CPU", database_is_full(group, about.machine)),
        ("pool", is_crowded(group)),
        ("broker", _broker_holds_back(group)),
    )
    return next((limit for limit, holds in looks if holds), "offered load")


def is_crowded(group: Repeats) -> bool:
    """Whether the pool was full, or a good part of the checkouts found no free connection."""
    waited = mean(point.wait.waited_share for point in group.points)
    return group.is_full or waited >= CROWDED_SHARE


def database_is_full(group: Repeats, machine: Machine) -> bool:
    """Whether PostgreSQL has used up the CPU: its own, or what others leave of a shared machine."""
    database = mean(point.server.cpu_cores or 0.0 for point in group.points)
    if not machine.database_is_local or database == 0:
        return False
    others = sum(
        mean(part.cpu_cores or 0.0 for part in parts if part)
        for parts in (
            [point.worker for point in group.points],
            [point.generator for point in group.points],
            [point.broker for point in group.points],
        )
    )
    return database + others >= MACHINE_FULL * machine.cores and database >= others / 2


def _broker_holds_back(group: Repeats) -> bool:
    """Commands wait in the queue though connections are free."""
    ready = mean(point.broker.ready_mean for point in group.points if point.broker)
    return ready > BROKER_BACKLOG * group.throughput > 0
