"""`worker lab capacity`: how much is too much."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.lab.common import (
    IntoService,
    Name,
    Out,
    Seconds,
    Set,
    WarmUp,
    conduct,
    load,
    time_of,
)
from worker.cli.lab.extra import lab_packages
from worker.cli.terminal import Misused


def capacity(
    scenario: Name = "steady",
    *,
    p99: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest p99 from intended start to end: `50ms`."),
    ] = None,
    p99_wait: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest p99 of the wait for a connection."),
    ] = None,
    seconds: Seconds = 4,
    warm_up: WarmUp = 1,
    changes: Set = None,
    out: Out = None,
    into_service_database: IntoService = False,
) -> None:
    """Find the highest rate of arrivals that keeps an objective, by bisection.

    A rate counts if all work that arrives is done, and in time. The rate that is found is measured
    once more with other arrivals. See `worker lab run` for where it works, and
    for Ctrl-C. Exit code 3 if no rate keeps the objective.

    \b
    Examples:
      worker lab capacity --p99 50ms
      worker lab capacity my-load.toml --p99-wait 20ms --set pool.pool_size=8
    """
    with lab_packages():
        from worker.lab.plan import Limit, find_capacity
        from worker.lab.results import Objective
    if p99 is None and p99_wait is None:
        raise Misused("name the objective: --p99 50ms, --p99-wait 20ms, or both")
    own = [f"load.measure_seconds={seconds}", f"load.warm_up_seconds={warm_up}"]
    base = load(scenario, *own, changes=changes)
    if base.load.kind == "closed" or base.load.arrivals == "burst" or base.load.ramp_to_per_second:
        raise Misused(f"{scenario} has no steady rate of arrivals that could be searched for")
    wait = None if p99_wait is None else time_of("--p99-wait", p99_wait)
    latency = None if p99 is None else time_of("--p99", p99)
    limit = Limit(latency_p99_seconds=latency, wait_p99_seconds=wait)
    # Nobody waits longer than the whole takes.
    longest = min(each for each in (wait, latency) if each is not None)
    conduct(
        "capacity",
        base,
        lambda: find_capacity(base, limit),
        out=out,
        into_service_database=into_service_database,
        objective=Objective(wait_p99_seconds=wait or longest, latency_p99_seconds=latency),
    )
