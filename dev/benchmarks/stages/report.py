"""The table of stages."""

from __future__ import annotations

from statistics import median
from textwrap import fill
from typing import Any

from dev.benchmarks.stages.run import STAGES
from dev.benchmarks.tables import place

COLUMNS = {
    "create, 100": "creates in groups of 100",
    "change, 100": "updates and deletes, 100",
    "create, 1": "creates, one by one",
}
"""What is measured, and its heading."""


def medians(document: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Microseconds of CPU a command, by what was measured and by stage."""
    found: dict[str, dict[str, float]] = {}
    for name in COLUMNS:
        runs = [each["stages"] for each in document["rounds"] if each["what"] == name]
        found[name] = {stage: median(run[stage] for run in runs) for stage in STAGES}
    return found


def markdown(document: dict[str, Any]) -> str:
    """A row for each stage, in the order of a command's way."""
    found = medians(document)
    totals = [sum(found[name].values()) for name in COLUMNS]
    lines = [
        f"| µs of CPU a command | {' | '.join(COLUMNS.values())} |",
        f"|---|{'--:|' * len(COLUMNS)}",
        *(
            f"| {stage} | {' | '.join(f'{found[name][stage]:,.1f}' for name in COLUMNS)} |"
            for stage in STAGES
        ),
        f"| **all of these** | {' | '.join(f'**{total:,.0f}**' for total in totals)} |",
    ]
    return "\n".join(lines)


def figures(document: dict[str, Any]) -> str:
    """The part of `docs/performance.md`."""
    rounds = max(each["round"] for each in document["rounds"])
    told = f"Medians of {rounds} rounds; {place(document)}."
    return f"{fill(told, 104, break_long_words=False)}\n\n{markdown(document)}\n"
