"""The result of a run: what was broken, how long it took to mend, what became of the commands."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dev.chaos.fleet import Ending
from dev.chaos.run import Happened
from worker.testing.journal import Journal
from worker.testing.verdict import Verdict

BACK_WITHIN_SECONDS = 10
"""Guarantee G6."""
LEAST_SHARE = 0.25
"""Of the messages that its rate asks for: a run that got fewer through proves little."""
KINDS = ("lost", "duplicated", "reordered", "untrue", "stuck")
SHOWN = 20
_ANONYMOUS = re.compile(r"anonymous-[\w-]+")


def order_is_promised(workers: Sequence[int], partitions: int) -> bool:
    """Whether the worker promises an order: within one process, or with partitions."""
    return list(workers) == [1] or partitions > 1


def result(
    *,
    circumstances: Mapping[str, Any],
    happened: Sequence[Happened],
    endings: Iterable[Ending],
    verdict: Verdict,
    book: Journal,
    anonymous: Journal,
    late_after: float = BACK_WITHIN_SECONDS,
) -> dict[str, Any]:
    """All of it, as JSON has it; a recovery is late after so many seconds."""
    injected = [fault for fault in happened if fault.missed is None]
    unexpected = [
        f"{ending.worker} ended with {ending.code}" for ending in endings if not ending.expected
    ]
    return {
        **circumstances,
        "faults": {
            "injected": len(injected),
            "missed": [f"{it.number} {it.name}: {it.missed}" for it in happened if it.missed],
            "by_kind": dict(sorted(Counter(fault.name for fault in injected).items())),
        },
        "recovery": _recovery(happened, late_after),
        "commands": _commands(verdict),
        "without_id": _without_id(book, anonymous),
        "broken_promises": [f"{it.number} {it.name}: {it.broken}" for it in happened if it.broken],
        "unexpected_endings": unexpected,
    }


def _commands(verdict: Verdict) -> dict[str, Any]:
    return {
        "attempted": verdict.attempted,
        "confirmed": verdict.confirmed,
        "done": verdict.done,
        "refused": verdict.refused,
        "dead_lettered": verdict.dead_lettered,
        "events_repeated": verdict.repeated,
        **{kind: len(found) for kind, found in verdict.charges.items()},
        "examples": {kind: found[:SHOWN] for kind, found in verdict.charges.items()},
    }


def _recovery(happened: Sequence[Happened], late_after: float) -> dict[str, Any]:
    times = [it.recovered_seconds for it in happened if it.recovered_seconds is not None]
    late = [
        f"{it.number} {it.name}: "
        + (f"{it.recovered_seconds:.1f} s" if it.recovered_seconds is not None else "never")
        for it in happened
        if it.recovered_seconds is None or it.recovered_seconds > late_after
    ]
    slowest: dict[str, float] = {}
    for it in happened:
        seconds = float("inf") if it.recovered_seconds is None else it.recovered_seconds
        slowest[it.name] = max(slowest.get(it.name, 0.0), seconds)
    return {
        "median_seconds": round(statistics.median(times), 2) if times else None,
        "max_seconds": max(times, default=None),
        "late": late,
        "slowest_by_kind": {
            name: seconds if seconds != float("inf") else None
            for name, seconds in sorted(slowest.items())
        },
    }


def _without_id(book: Journal, anonymous: Journal) -> dict[str, Any]:
    """Commands without an id are answered at least once; the answer's words hold their names."""
    answered = {
        name
        for event in book.events
        if event.command_id is None
        for name in _ANONYMOUS.findall(event.data)
    }
    confirmed = {confirm.id for confirm in anonymous.confirms}
    return {
        "confirmed": len(confirmed),
        "answered": len(confirmed & answered),
        "lost": sorted(confirmed - answered),
    }


def is_good(found: Mapping[str, Any]) -> bool:
    """Whether nothing is wrong, and all was tried that was planned."""
    return not (
        any(found["commands"][kind] for kind in KINDS)
        or found["faults"]["missed"]
        or _is_idle(found)
        or found["recovery"]["late"]
        or found["without_id"]["lost"]
        or found["broken_promises"]
        or found["unexpected_endings"]
    )


def _is_idle(found: Mapping[str, Any]) -> bool:
    planned = found["rate"] * found["minutes"] * 60
    return bool(found["commands"]["confirmed"] < LEAST_SHARE * planned)


def in_words(found: Mapping[str, Any]) -> str:
    """For people."""
    commands, faults, recovery = found["commands"], found["faults"], found["recovery"]
    lines = [
        f"{faults['injected']} faults in {found['minutes']:.1f} minutes"
        f" ({len(faults['missed'])} did not come about), seed {found['seed']}",
        ", ".join(f"{count} {name}" for name, count in faults["by_kind"].items()),
        "{attempted} commands attempted, {confirmed} confirmed: {done} done, {refused} refused,"
        " {dead_lettered} dead-lettered".format(**commands),
        f"{found['without_id']['confirmed']} more without an id,"
        f" {len(found['without_id']['lost'])} of them lost",
        ", ".join(f"{commands[kind]} {kind}" for kind in KINDS),
        f"well again after {recovery['median_seconds']} s (median),"
        f" {recovery['max_seconds']} s (longest)",
        *(f"late: {words}" for words in recovery["late"]),
        *(f"missed: {words}" for words in faults["missed"]),
        *(["idle: too few commands for what the rate asks"] if _is_idle(found) else []),
        *(f"broken: {words}" for words in found["broken_promises"]),
        *(f"unexpected: {words}" for words in found["unexpected_endings"]),
        *(
            f"{kind}: {words}"
            for kind, examples in commands["examples"].items()
            for words in examples
        ),
        "GOOD" if is_good(found) else "NOT GOOD",
    ]
    return "\n".join(lines)


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Keep it with the run's records."""
    (folder / "verdict.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "verdict.txt").write_text(in_words(found) + "\n")
