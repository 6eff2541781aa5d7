"""`worker lab capacity`: how much is too much."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from worker.cli.lab.conduct import IntoService, Out, Set, conduct, folder
from worker.cli.lab.extra import lab_packages
from worker.cli.lab.sweep import time_of
from worker.cli.terminal import Misused


def capacity(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="A name from `worker lab scenarios`, or a .toml file."
        ),
    ] = "steady",
    *,
    p99: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest p99 from intended start to end: `50ms`."),
    ] = None,
    p99_wait: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest p99 of the wait for a connection."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.5, max=3600, help="Length of each measurement.")
    ] = 4,
    warm_up: Annotated[
        float, typer.Option(metavar="S", min=0, max=600, help="Warm-up before each.")
    ] = 1,
    changes: Set = None,
    out: Out = None,
    into_service_database: IntoService = False,
) -> None:
    """Find the highest rate of arrivals that keeps an objective, by bisection.

    A rate counts if all work that arrives is done, and in time. The rate that is found is measured
    once more with other arrivals. See `worker lab run` for where it works, and for Ctrl-C.

    \b
    Examples:
      worker lab capacity --p99 50ms
      worker lab capacity my-load.toml --p99-wait 20ms --set pool.pool_size=8
    """
    with lab_packages():
        from worker.lab.campaign import Campaign
        from worker.lab.plan import Limit, find_capacity
        from worker.lab.results import Objective
        from worker.lab.scenario_files import load_scenario
    if p99 is None and p99_wait is None:
        raise Misused("name the objective: --p99 50ms, --p99-wait 20ms, or both")
    own = [f"load.measure_seconds={seconds}", f"load.warm_up_seconds={warm_up}"]
    base = load_scenario(scenario, [*own, *(changes or ())])
    if base.load.kind == "closed" or base.load.arrivals == "burst" or base.load.ramp_to_per_second:
        raise Misused(f"{scenario} has no steady rate of arrivals that could be searched for")
    limit = Limit(
        latency_p99_seconds=None if p99 is None else time_of("--p99", p99),
        wait_p99_seconds=None if p99_wait is None else time_of("--p99-wait", p99_wait),
    )
    objective = Objective()
    if limit.wait_p99_seconds is not None:
        objective = Objective(wait_p99_seconds=limit.wait_p99_seconds)
    conduct(
        Campaign(
            kind="capacity",
            scenario=base,
            scenarios=[base],
            plan=lambda: find_capacity(base, limit),
            out=folder(out, "capacity", base.name),
            objective=objective,
            into_service_database=into_service_database,
            command=("worker", *sys.argv[1:]),
        )
    )
