"""The figures of all rounds, the targets, and the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from dev.benchmarks.figures import Spread, ratios
from dev.benchmarks.growth.station import Drained
from dev.benchmarks.tables import place

LEAST_RATIO = 0.9
"""Throughput on the fullest tables over that on empty ones."""

MOST_BYTES = 120_000_000
"""Resident memory of a worker, whatever waits."""

SETTLED = 0.5
"""Memory is flat if it grows no further in this last part of a drain."""


@dataclass(frozen=True)
class Row:
    """One case over all rounds."""

    part: str
    size: int
    keys: str
    rate: Spread
    compared: Spread | None
    """Its rate over that of the smallest case of the same kind, round by round."""
    peak_bytes: int
    faults: tuple[str, ...]


def rows(turns: Sequence[Drained], part: str) -> list[Row]:
    """All cases of a part, the smallest first."""
    cases = sorted({(turn.keys, turn.size) for turn in turns if turn.part == part})
    return [_row([turn for turn in turns if turn.part == part], *case) for case in cases]


def _row(turns: Sequence[Drained], keys: str, size: int) -> Row:
    mine = [turn for turn in turns if (turn.keys, turn.size) == (keys, size)]
    smallest = min(turn.size for turn in turns if turn.keys == keys)
    pairs = ratios(_rates(turns, keys, size), _rates(turns, keys, smallest))
    return Row(
        part=mine[0].part,
        size=size,
        keys=keys,
        rate=Spread.of([turn.rate for turn in mine]),
        compared=Spread.of(pairs) if size != smallest and pairs else None,
        peak_bytes=max(turn.peak_bytes for turn in mine),
        faults=tuple(f"round {turn.round}: {turn.fault}" for turn in mine if turn.fault),
    )


def _rates(turns: Sequence[Drained], keys: str, size: int) -> Mapping[int, float]:
    return {turn.round: turn.rate for turn in turns if (turn.keys, turn.size) == (keys, size)}


def growth(turn: Drained) -> int:
    """Bytes that memory grew by in the last `SETTLED` part of a drain, at its highest."""
    split = round(len(turn.memory) * SETTLED)
    before, after = turn.memory[:split], turn.memory[split:]
    if not before or not after:
        return 0
    return max(0, max(used for _, used in after) - max(used for _, used in before))


def figures(document: Mapping[str, Any]) -> str:
    """What docs/performance.md shows of `growth.json`."""
    turns = [Drained.model_validate(turn) for turn in document["turns"]]
    rounds = max(turn.round for turn in turns)
    told = (
        f"Measured until {document['measured_on'][:10]}, number of rounds: {rounds}; "
        f"{place(document)}."
    )
    return f"{fill(told, 104, break_long_words=False)}\n\n{markdown(turns)}\n"


def markdown(turns: Sequence[Drained]) -> str:
    """The tables."""
    tables = (
        _rates_table(rows(turns, "rows"), "rows in users and ledger each", "empty"),
        _backlog_table([turn for turn in turns if turn.part == "backlog"]),
        _rates_table(rows(turns, "lanes"), "lanes", "1 lane"),
        _targets(turns),
    )
    return "\n\n".join("\n".join(table) for lines in tables if (table := [*lines]))


def _rates_table(found: Sequence[Row], what: str, smallest: str) -> Iterator[str]:
    if not found:
        return
    yield f"| {what} | keys | commands/s | lowest … highest | : {smallest} | peak memory |"
    yield "|--:|---|--:|---|---|--:|"
    for row in found:
        rate, compared = row.rate, row.compared
        spread = f"{rate.low:,.0f} … {rate.high:,.0f}"
        ratio = (
            f"{compared.median:.2f} ({compared.low:.2f} … {compared.high:.2f})" if compared else "–"
        )
        faults = f" **{'; '.join(row.faults)}**" if row.faults else ""
        yield (
            f"| {row.size:,} | {row.keys} | {rate.median:,.0f} | {spread} "
            f"| {ratio} | {_mb(row.peak_bytes)}{faults} |"
        )


def _backlog_table(turns: Sequence[Drained]) -> Iterator[str]:
    """Memory alone: what it takes to drain for minutes is not compared with seconds."""
    if not turns:
        return
    yield "| commands in the queue | peak memory | grown in the second half |"
    yield "|--:|--:|--:|"
    for turn in sorted(turns, key=lambda turn: (turn.size, turn.round)):
        wrong = f" **{turn.fault}**" if turn.fault else ""
        yield (f"| {turn.size:,} | {_mb(turn.peak_bytes)}{wrong} | {growth(turn) / 1e6:.1f} MB |")


def _targets(turns: Sequence[Drained]) -> Iterator[str]:
    yield "| target | at most / least | measured | |"
    yield "|---|---|---|---|"
    for row in rows(turns, "rows"):
        if row.compared and row.size == max(turn.size for turn in turns if turn.part == "rows"):
            yield _target(
                f"rate with {row.size:,} rows, {row.keys} keys : empty",
                f"≥ {LEAST_RATIO}",
                f"{row.compared.median:.2f}",
                reached=row.compared.median >= LEAST_RATIO,
            )
    if turns:
        peak = max(turn.peak_bytes for turn in turns)
        yield _target(
            "peak memory of all drains",
            f"≤ {_mb(MOST_BYTES)}",
            _mb(peak),
            reached=peak <= MOST_BYTES,
        )
    long = [turn for turn in turns if turn.part == "backlog"]
    if long:
        longest = max(long, key=lambda turn: turn.commands)
        grown = growth(longest)
        yield _target(
            f"memory grown in the second half of {longest.commands:,} commands",
            "≤ 2 MB",
            f"{grown / 1e6:.1f} MB",
            reached=grown <= 2_000_000,
        )


def _target(what: str, limit: str, measured: str, *, reached: bool) -> str:
    return f"| {what} | {limit} | {measured} | {'reached' if reached else 'missed'} |"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
