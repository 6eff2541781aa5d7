"""`worker lab scenarios`: what there is to run."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.lab.extra import lab_packages
from worker.cli.terminal import Misused, columns, emit, emit_json


def scenarios(
    show: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Print this one as TOML, to be copied and changed."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the scenarios that come with the worker, with a sentence each.

    \b
    Examples:
      worker lab scenarios
      worker lab scenarios steady > my-load.toml
    """
    with lab_packages():
        from worker.lab.scenario_files import load_scenario, shipped
    known = shipped()
    if show is not None:
        if show not in known:
            raise Misused(f"there is no scenario {show!r}. Known: {', '.join(known)}")
        emit(known[show].read_text(encoding="utf-8").rstrip("\n"))
        return
    for name in known:
        scenario = load_scenario(name)
        if as_json:
            emit_json({"name": name, "sentence": scenario.sentence})
        else:
            emit(columns((name, max(map(len, known))), (scenario.sentence, 0)))
