"""`worker lab report`: the page and the pictures again, from a result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.lab.extra import lab_packages
from worker.cli.terminal import Misused, emit


def report(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="A result.json, or the folder that holds it."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write into; by default where each result lies.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write page, plots, tables and summary of a result anew, with this version's conclusions.

    `report.html` holds all it needs: mail it, or open it offline. Beside it: every plot as PNG and
    SVG, points.csv, seconds.csv, and summary.md for a pull request. Prints the files.

    \b
    Examples:
      worker lab report lab-results/sweep-steady-20261125-101500
      worker lab report result.json --out report/
    """
    if out is not None and len(files) > 1:
        raise Misused("--out is for one result: with several, each is written where it lies")
    with lab_packages():
        from worker.lab.analysis import analyse
        from worker.lab.report import write_report
        from worker.lab.results import load_result
    for file in files:
        folder = out or (file if file.is_dir() else file.parent)
        for written in write_report(analyse(load_result(file)), folder):
            emit(str(written))
