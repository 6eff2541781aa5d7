"""`worker lab diff`: what changed between two results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.lab.extra import lab_packages
from worker.cli.terminal import coloured, columns, emit, emit_json, say

if TYPE_CHECKING:
    from worker.lab.diff import Difference

_COLOURS = {"better": "green", "worse": "red"}


def diff(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="A result.json, or the folder that holds it.")
    ],
    after: Annotated[Path, typer.Argument(metavar="B", help="The other one.")],
) -> None:
    """Compare two results, setting by setting, with intervals of 95 %.

    A difference is called better or worse only where its interval leaves 0 out; of times also only
    from 1 ms on. In a pipe each difference is one JSON object a line. Compare what ran on one
    machine: another one is another measurement.

    \b
    Examples:
      worker lab diff before/ after/
      worker lab diff a.json b.json | jq 'select(.verdict == "worse")'
    """
    with lab_packages():
        from worker.lab.diff import compare
        from worker.lab.results import load_result
    old, new = load_result(before), load_result(after)
    if old.about.machine != new.about.machine:
        say("warning: the two were not measured on the same machine")
    differences = compare(old, new)
    if not sys.stdout.isatty():
        for each in differences:
            emit_json(each.model_dump(exclude_none=True))
        return
    for each in differences:
        emit(coloured(_line(each), _COLOURS.get(each.verdict, "white")))


def _line(difference: Difference) -> str:
    change = "" if difference.change is None else f"{difference.change:+.1%}"
    return columns(
        (str(difference.setting), 34),
        (difference.metric, 11),
        (change, 9),
        (difference.verdict, 13),
        (difference.words, 0),
    )
