"""`benchmarks.json`: everything that was measured, and what follows from it.

Its members are listed in docs/performance.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

from dev.benchmarks.contender import Contender
from dev.benchmarks.figures import Spread, ratios
from dev.benchmarks.rounds import REFERENCE, Outcome
from dev.benchmarks.targets import TARGETS, Reached, reached

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One contender over all rounds."""

    contender: Contender
    commands: int
    rate: Spread | None
    """Commands per second; `None` if it never finished."""
    behind: Spread | None
    """How many times as fast the worker was, in the same minute of each round."""
    cpu: Mapping[str, float | None]
    """CPU microseconds per command of `contender`, `broker` and `database`, medians."""
    peak_bytes: int | None
    remarks: tuple[str, ...]
    """What went wrong, and in which round."""


def speeds(outcomes: Sequence[Outcome]) -> dict[str, dict[int, float]]:
    """How fast everybody was in each round, compared with the reference in the same minute.

    That is the rate divided by the mean of the reference's last rate before and first rate after
    it; for the reference itself it is 1. Where the reference took no part, it is the plain rate. A
    run that did not do all of its work once has no speed.
    """
    found: dict[str, dict[int, float]] = defaultdict(dict)
    clean = [
        (place, outcome.round, outcome.contender, outcome.run.rate)
        for place, outcome in enumerate(outcomes)
        if outcome.run is not None and not outcome.trouble
    ]
    marks = [(place, number, rate) for place, number, name, rate in clean if name == REFERENCE]
    for place, number, name, rate in clean:
        before = [value for at, of, value in marks if of == number and at <= place][-1:]
        after = [value for at, of, value in marks if of == number and at >= place][:1]
        if before or after:
            found[name][number] = rate / mean([*before, *after])
        elif not marks:
            found[name][number] = rate
    return dict(found)


def rows(contenders: Sequence[Contender], outcomes: Sequence[Outcome]) -> list[Row]:
    """Every contender's row, the fastest first; those without a rate come last."""
    compared = speeds(outcomes)
    found = [_row(contender, outcomes, compared) for contender in contenders]
    return sorted(found, key=lambda row: row.rate.median if row.rate else 0, reverse=True)


def _row(
    contender: Contender,
    outcomes: Sequence[Outcome],
    compared: Mapping[str, Mapping[int, float]],
) -> Row:
    mine = [outcome for outcome in outcomes if outcome.contender == contender.name]
    runs = [outcome.run for outcome in mine if outcome.run is not None]
    rates = [run.rate for run in runs if run.tally.clean]
    own = compared.get(contender.name, {})
    pairs = [] if contender.name == REFERENCE else ratios(compared.get(REFERENCE, {}), own)
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return Row(
        contender=contender,
        commands=runs[0].commands if runs else 0,
        rate=Spread.of(rates) if rates else None,
        behind=Spread.of(pairs) if pairs else None,
        cpu={
            part: _median([getattr(run.usage, part) for run in runs])
            for part in ("contender", "broker", "database")
        },
        peak_bytes=max(peaks, default=None),
        remarks=tuple(
            f"round {outcome.round}: {outcome.trouble}" for outcome in mine if outcome.trouble
        ),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def targets(outcomes: Sequence[Outcome]) -> list[Reached]:
    """All targets, with what was measured for each."""
    compared = speeds(outcomes)
    return [reached(target, compared) for target in TARGETS]


def document(
    contenders: Sequence[Contender],
    outcomes: Sequence[Outcome],
    *,
    skipped: Mapping[str, str],
    **circumstances: Any,
) -> dict[str, Any]:
    """The content of `benchmarks.json`."""
    return {
        "schema": SCHEMA,
        **circumstances,
        "contenders": [_row_document(row) for row in rows(contenders, outcomes)],
        "skipped": dict(skipped),
        "targets": [_target_document(each) for each in targets(outcomes)],
        "rounds": [_outcome_document(outcome) for outcome in outcomes],
    }


def _row_document(row: Row) -> dict[str, Any]:
    contender = row.contender
    return {
        "name": contender.name,
        "label": contender.label,
        "yardstick": contender.yardstick,
        "processes": contender.processes,
        "queue": contender.queue.value,
        "commands": row.commands,
        "rate": asdict(row.rate) if row.rate else None,
        "worker_is_times_as_fast": asdict(row.behind) if row.behind else None,
        "cpu_us_per_command": dict(row.cpu),
        "peak_bytes": row.peak_bytes,
        "remarks": list(row.remarks),
    }


def _target_document(each: Reached) -> dict[str, Any]:
    return {
        "what": each.target.what,
        "at_least": each.target.at_least,
        "aim": each.target.aim,
        "ratio": asdict(each.ratio) if each.ratio else None,
        "verdict": each.verdict,
    }


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    known: dict[str, Any] = {"round": outcome.round, "contender": outcome.contender}
    if outcome.run is None:
        return {**known, "failure": outcome.failure}
    run = asdict(outcome.run)
    del run["contender"]
    return {**known, **run, "cpu_us_per_command": run.pop("usage")}
