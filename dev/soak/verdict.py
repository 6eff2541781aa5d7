"""Is a series flat? What it grows by after the warm-up, by the slope of Theil and Sen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any

from scipy.stats import theilslopes

WARM_UP = 0.3
"""Part of the samples that is left out: caches, windows and queues fill up to their bounds."""
MOST_SHARE = 0.1
"""Of its own median that a series may grow by, from the end of the warm-up to that of the run."""

Sample = Mapping[str, float]


@dataclass(frozen=True)
class Bound:
    """What may be grown by whatever the median is; in the unit of the series."""

    unit: str
    room: float
    meaning: str


SERIES: dict[str, Bound] = {
    "rss_bytes": Bound("bytes", 5e6, "the worker's resident memory"),
    "tasks": Bound("", 50, "tasks of its event loop, which swing by what is in hand"),
    "open_files": Bound("", 4, "its file handles, sockets included"),
    "connections": Bound("", 3, "its connections to the database"),
    "threads": Bound("", 2, "its threads"),
    "users_bytes": Bound("bytes", 2e6, "table and indexes of the users"),
    "orders_bytes": Bound("bytes", 1e5, "table and indexes of the orders"),
    "command_ledger_bytes": Bound("bytes", 2e7, "table and indexes of the ledger"),
    "ledger_rows": Bound("rows", 2_000, "commands that the ledger remembers"),
    "commands_messages": Bound("messages", 5_000, "commands that wait"),
    "events_messages": Bound("messages", 120_000, "events in the stream, cut in whole segments"),
    "dead_letters_messages": Bound("messages", 200, "dead letters"),
}


@dataclass(frozen=True)
class Flatness:
    """What became of one series."""

    median: float
    grown: float
    """By the slope, over the time after the warm-up."""
    bound: float
    flat: bool


def judge(samples: Sequence[Sample]) -> dict[str, Flatness]:
    """Each series that the samples hold."""
    settled = samples[round(len(samples) * WARM_UP) :]
    seconds = [sample["seconds"] for sample in settled]
    return {
        name: _judge(seconds, [sample[name] for sample in settled], bound)
        for name, bound in SERIES.items()
    }


def _judge(seconds: Sequence[float], values: Sequence[float], bound: Bound) -> Flatness:
    median = sorted(values)[len(values) // 2]
    slope = float(theilslopes(values, seconds).slope)
    grown = slope * (seconds[-1] - seconds[0])
    most = max(bound.room, MOST_SHARE * median)
    return Flatness(median, grown, most, grown <= most)


def as_json(found: Mapping[str, Flatness]) -> dict[str, Any]:
    """For `soak.json`."""
    return {name: asdict(flatness) for name, flatness in found.items()}


def figures(document: Mapping[str, Any]) -> str:
    """What docs/guarantees.md shows of `soak.json`."""
    events, missing = document["answers"]["events"], document["answers"]["missing"]
    told = (
        f"Measured on {document['measured_on'][:10]}: {document['commands']:,} commands in "
        f"{document['seconds'] / 60:,.1f} minutes ({document['rate']:,.0f}/s) at one worker "
        f"process; {events:,} events, {missing:,} too few or too many. Things age faster than by "
        "default, so that they have to be forgotten within the run: the ledger and the dead "
        f"letters after {document['retention_seconds']:g} s, the stream at "
        f"{document['stream_bytes'] / 1e6:,.0f} MB."
    )
    lines = [
        fill(told, 104, break_long_words=False),
        "",
        "| what | median | grown after the warm-up | at most | |",
        "|---|--:|--:|--:|---|",
    ]
    for name, flatness in document["verdict"].items():
        bound = SERIES[name]
        shown = [_shown(flatness[part], bound.unit) for part in ("median", "grown", "bound")]
        word = "flat" if flatness["flat"] else "**grows**"
        lines.append(f"| {bound.meaning} | {' | '.join(shown)} | {word} |")
    return "\n".join(lines) + "\n"


def _shown(value: float, unit: str) -> str:
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else f"{value:,.0f}"
