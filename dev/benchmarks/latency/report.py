"""Turns of several rounds, added up: percentiles, ratios round by round, and the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from textwrap import fill
from typing import Any

from dev.benchmarks.figures import Spread, ratios
from dev.benchmarks.latency.turn import Turn
from dev.benchmarks.tables import place
from worker.lab.durations import Durations, durations_of, histogram_of, new_histogram

ENOUGH_FOR_P999 = 1_000
"""Of fewer commands the last one in a thousand is no percentile, but the slowest."""

TARGET_RATE, AT_MOST, AIM = 200, 1.0, 0.7
"""At so many commands a second, p50 and p99 over FastStream's."""


@dataclass(frozen=True)
class Row:
    """One contender at one rate, all rounds together."""

    contender: str
    arrivals: str
    rate: float
    achieved: float
    """Events per second while commands came, the median of the rounds."""
    kept_up: bool
    """In every round."""
    latency: Durations
    unanswered: int
    lateness_p99: float
    lateness_max: float

    @property
    def p999(self) -> float | None:
        """The 99.9th percentile, if there are enough commands to tell."""
        return self.latency.p999 if self.latency.count >= ENOUGH_FOR_P999 else None


def rows(turns: Iterable[Turn]) -> list[Row]:
    """One for each contender, way of arrival and rate that has been measured."""

    def key(turn: Turn) -> tuple[str, float, str]:
        return turn.arrivals, turn.rate, turn.contender

    done = sorted((turn for turn in turns if turn.failure is None), key=key)
    return [_row(list(group)) for _, group in groupby(done, key)]


def _row(turns: Sequence[Turn]) -> Row:
    lateness = [turn.lateness for turn in turns if turn.lateness is not None]
    return Row(
        contender=turns[0].contender,
        arrivals=turns[0].arrivals,
        rate=turns[0].rate,
        achieved=median(turn.achieved for turn in turns if turn.achieved is not None),
        kept_up=all(turn.kept_up for turn in turns),
        latency=together(turn.latency for turn in turns if turn.latency is not None),
        unanswered=sum(turn.unanswered for turn in turns),
        lateness_p99=max(each.p99 for each in lateness),
        lateness_max=max(each.max for each in lateness),
    )


def together(distributions: Iterable[Durations]) -> Durations:
    """All values of several distributions as one."""
    histogram = new_histogram()
    for each in distributions:
        if (values := histogram_of(each)) is not None:
            histogram.add(values)
    return durations_of(histogram, keep_values=False)


def compared(turns: Sequence[Turn], *, arrivals: str, percentile: str) -> Spread | None:
    """The worker's percentile over FastStream's at `TARGET_RATE`, in the rounds that have both."""

    def values(contender: str) -> dict[int, float]:
        return {
            turn.round: getattr(turn.latency, percentile)
            for turn in turns
            if (turn.contender, turn.arrivals, turn.rate) == (contender, arrivals, TARGET_RATE)
            and turn.latency is not None
        }

    found = ratios(values("worker"), values("faststream"))
    return Spread.of(found) if found else None


def figures(document: Mapping[str, Any]) -> str:
    """What docs/performance.md shows of `latency.json`."""
    turns = [Turn.model_validate(turn) for turn in document["turns"]]
    rounds = len({turn.round for turn in turns})
    told = (
        f"Measured until {document['measured_on'][:10]}, number of rounds: {rounds}, in each "
        f"{turns[0].seconds:g} s of every load after a warm-up; {place(document)}."
    )
    return f"{fill(told, 104, break_long_words=False)}\n\n{markdown(turns)}\n"


def markdown(turns: Sequence[Turn]) -> str:
    """The tables."""
    return "\n".join([*_percentiles(rows(turns)), "", *_targets(turns)])


def _percentiles(table: Sequence[Row]) -> Iterator[str]:
    yield (
        "| arrivals | commands/s | contender | p50 | p90 | p99 | p99.9 | max | kept up |"
        " sender late, p99 / max |"
    )
    yield "|---|--:|---|--:|--:|--:|--:|--:|---|--:|"
    for row in table:
        values = row.latency
        shown = (values.p50, values.p90, values.p99, row.p999, values.max)
        latencies = " | ".join("–" if each is None else _ms(each) for each in shown)
        yield (
            f"| {row.arrivals} | {row.rate:,.0f} | {row.contender} | {latencies} "
            f"| {_kept_up(row)} | {_ms(row.lateness_p99)} / {_ms(row.lateness_max)} |"
        )


def _kept_up(row: Row) -> str:
    if row.kept_up:
        return "yes"
    missing = f"; {row.unanswered:,} unanswered" if row.unanswered else ""
    return f"**no: {row.achieved:,.0f}/s{missing}**"


def _targets(turns: Sequence[Turn]) -> Iterator[str]:
    yield f"| at {TARGET_RATE}/s, worker : FastStream | median | lowest … highest | target |"
    yield "|---|--:|---|---|"
    for arrivals in dict.fromkeys(turn.arrivals for turn in turns):
        for percentile in ("p50", "p99"):
            ratio = compared(turns, arrivals=arrivals, percentile=percentile)
            if ratio is not None:
                verdict = "reached" if ratio.median <= AT_MOST else "missed"
                verdict = "aim reached" if ratio.median <= AIM else verdict
                yield (
                    f"| {percentile}, {arrivals} | {ratio.median:.2f} "
                    f"| {ratio.low:.2f} … {ratio.high:.2f} | ≤ {AT_MOST}, aim {AIM}: {verdict} |"
                )


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.1f} ms"
