"""`worker lab run`: one scenario."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.lab.common import IntoService, Name, Out, Set, conduct, load
from worker.cli.lab.extra import lab_packages


def run(
    scenario: Name,
    *,
    changes: Set = None,
    out: Out = None,
    repeats: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="Measure so many times.")
    ] = 1,
    into_service_database: IntoService = False,
) -> None:
    """Measure one scenario, and write result.json.

    Works on the PostgreSQL of WORKER_DATABASE__URL, in a database of its own beside the service's
    (`worker_lab_…`), which is removed at the end. Ctrl-C keeps what was measured so far. Without a
    terminal, prints one JSON object a line: each measurement, then what was concluded.

    \b
    Examples:
      worker lab run steady
      worker lab run spike --set pool.max_overflow=45
      worker lab run my-load.toml --set load.rate_per_second=400 --repeats 3 --out out/
    """
    with lab_packages():
        from worker.lab.plan import repeats as repeated
    base = load(scenario, changes=changes)
    conduct(
        "run",
        base,
        lambda: repeated(base, repeats),
        out=out,
        into_service_database=into_service_database,
    )
