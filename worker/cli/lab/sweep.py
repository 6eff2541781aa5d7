"""`worker lab sweep`: the same load on pools of many sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.lab.common import (
    IntoService,
    Name,
    Out,
    Seconds,
    Set,
    WarmUp,
    conduct,
    integers,
    load,
    time_of,
)
from worker.cli.lab.extra import lab_packages
from worker.cli.terminal import Misused

if TYPE_CHECKING:
    from worker.lab.sweep import Matrix

MOST_CELLS = 10_000


def sweep(
    scenario: Name = "steady",
    *,
    pool_size: Annotated[str, typer.Option(metavar="N,N,…", help="Pool sizes.")] = "1,2,4,8,16,32",
    overflow: Annotated[str, typer.Option(metavar="N,N,…", help="Overflows.")] = "0,5",
    lanes: Annotated[
        str | None,
        typer.Option(metavar="N,N,…", help="Lanes; by default all work begins at once."),
    ] = None,
    group_size: Annotated[
        str, typer.Option(metavar="N,N,…", help="Most pieces of work in one transaction.")
    ] = "1",
    rate: Annotated[
        str | None,
        typer.Option(metavar="N,N,…", help="Arrivals a second; by default the scenario's."),
    ] = None,
    p99_wait: Annotated[
        str, typer.Option(metavar="TIME", help="Longest p99 of the wait that is still good.")
    ] = "20ms",
    repeats: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="Measure each so many times.")
    ] = 2,
    seconds: Seconds = 3,
    warm_up: WarmUp = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order, and of all chance.")] = 1,
    changes: Set = None,
    out: Out = None,
    into_service_database: IntoService = False,
) -> None:
    """Measure the same load on pools of many sizes, and recommend one.

    Each setting is measured with its arrivals, in a shuffled order, and each size once with as
    many clients as keep it full; then the sizes around the knee. With the defaults this takes less
    than five minutes. See `worker lab run` for where it works, and for Ctrl-C. Exit
    code 3 if nothing can be recommended.

    \b
    Examples:
      worker lab sweep
      worker lab sweep my-load.toml --pool-size 2,4,8 --overflow 0 --rate 200,400
      worker lab sweep slow-commit --lanes 4 --group-size 1,64 --out out/
    """
    with lab_packages():
        from worker.lab.results import Objective
        from worker.lab.sweep import Sweep
    own = [f"load.measure_seconds={seconds}", f"load.warm_up_seconds={warm_up}", f"seed={seed}"]
    base = load(scenario, *own, changes=changes)
    matrix = _matrix(pool_size, overflow, lanes, group_size, rate)
    objective = Objective(wait_p99_seconds=time_of("--p99-wait", p99_wait))
    it = Sweep(base, matrix, objective, repeats, base.seed)
    scenarios = list(it.scenarios())
    if len(scenarios) > MOST_CELLS:
        raise Misused(f"that makes {len(scenarios)} measurements: name fewer values")
    conduct(
        "sweep",
        base,
        it.plan,
        out=out,
        into_service_database=into_service_database,
        scenarios=scenarios,
        objective=objective,
    )


def _matrix(
    pool_size: str, overflow: str, lanes: str | None, group_size: str, rate: str | None
) -> Matrix:
    from worker.lab.sweep import Matrix

    return Matrix(
        pool_sizes=sorted(integers("--pool-size", pool_size, least=1)),
        overflows=integers("--overflow", overflow, least=0),
        lanes=[None] if lanes is None else integers("--lanes", lanes, least=1),
        group_sizes=integers("--group-size", group_size, least=1),
        rates=[None] if rate is None else [float(n) for n in integers("--rate", rate, least=1)],
    )
