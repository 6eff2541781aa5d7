"""`worker lab gate`: an exit code for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.lab.common import time_of
from worker.cli.lab.extra import lab_packages
from worker.cli.terminal import Misused, emit_json, say
from worker.core.errors import WorkerError

if TYPE_CHECKING:
    from worker.lab.gate import GateLimits


class GateShut(WorkerError):
    """What was measured does not keep the limits."""

    exit_code = 3


def gate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A result.json, or the folder that holds it.")
    ],
    *,
    p99_wait: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest p99 of the wait for a connection: `20ms`."),
    ] = None,
    p99_latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest p99 from intended start to end: `250ms`."),
    ] = None,
    timeouts: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Most timeouts of the pool.")
    ] = None,
    errors: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Most pieces of work that failed.")
    ] = None,
    dropped: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Most pieces of work never started.")
    ] = None,
    throughput: Annotated[
        float | None,
        typer.Option(metavar="PER_SECOND", min=0, help="Least work completed in a second."),
    ] = None,
    pool_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Only points with this pool size; default all."),
    ] = None,
) -> None:
    """Hold a result against limits: exit code 0 if every point keeps them, else 3.

    A failed check of the lab's own shuts the gate, too: numbers that cannot be trusted prove
    nothing. Prints each limit that was looked at, one JSON object a line.

    \b
    Examples:
      worker lab gate result.json --p99-wait 20ms --timeouts 0
      worker lab gate out/ --pool-size 8 --throughput 400 --errors 0
    """
    with lab_packages():
        from worker.lab.gate import GateLimits, judge
        from worker.lab.results import load_result
    limits = GateLimits(
        wait_p99_seconds=_seconds("--p99-wait", p99_wait),
        latency_p99_seconds=_seconds("--p99-latency", p99_latency),
        timeouts=timeouts,
        failed=errors,
        dropped=dropped,
        throughput_per_second=throughput,
    )
    _refuse_nothing(limits)
    verdicts = judge(load_result(file), limits, pool_size=pool_size)
    for verdict in verdicts:
        emit_json(verdict.model_dump(exclude_none=True))
    broken = [verdict for verdict in verdicts if not verdict.kept]
    if broken:
        raise GateShut("\n".join(["the gate is shut:", *(each.words for each in broken)]))
    say(f"the gate is open: {len(verdicts)} limits kept")


def _refuse_nothing(limits: GateLimits) -> None:
    if not limits.model_dump(exclude_none=True):
        raise Misused("give at least one limit, such as --p99-wait 20ms or --timeouts 0")


def _seconds(option: str, text: str | None) -> float | None:
    return None if text is None else time_of(option, text)
