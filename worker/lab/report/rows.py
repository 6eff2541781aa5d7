"""The numbers behind the plots, as plain rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from worker.lab.durations import Durations, recorded_in
from worker.lab.findings import ScalabilityFit
from worker.lab.model import usl
from worker.lab.repeats import Repeats
from worker.lab.results import Result
from worker.lab.setting import Setting
from worker.lab.units import show_number, show_seconds

Row = dict[str, Any]
PERCENTILES = {
    "p50": "p50",
    "p90": "p90",
    "p95": "p95",
    "p99": "p99",
    "p99.9": "p999",
    "max": "max",
}
"""As they are shown, and the fields of `Durations`."""
LEAST_SHOWN_SECONDS = 1e-5
"""On a logarithmic axis nothing is 0: what is shorter is shown as this."""


def main_setting(result: Result, groups: Sequence[Repeats]) -> Setting:
    """The setting that the plots begin with: the one that all is about."""
    if result.answer is not None:
        return result.answer
    found = [each for each in groups if each.setting.load == "open"] or list(groups)
    found = [each for each in found if not each.lost] or found
    return max(
        found,
        key=lambda each: (each.setting.rate_per_second or 0, -each.setting.max_overflow),
    ).setting


def _row(group: Repeats, **numbers: Any) -> Row:
    setting = group.setting
    return {
        "connections": setting.connections,
        "size": setting.pool_size,
        "pool": setting.pool,
        "load": setting.load_name,
        "series": setting.series,
        **numbers,
    }


def _shown(seconds: float) -> float:
    return max(seconds, LEAST_SHOWN_SECONDS)


def throughput_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """Throughput and its interval by number of connections."""
    for each in groups:
        low, high = each.throughput_interval.low, each.throughput_interval.high
        spread = f"{show_number(low)} to {show_number(high)}"
        yield _row(
            each,
            throughput=each.throughput,
            low=low,
            high=high,
            state="full" if each.is_full else "had room",
            shown=f"{show_number(each.throughput)}/s ({spread})",
        )


def curve_rows(fit: ScalabilityFit, sizes: Sequence[int]) -> list[Row]:
    """The fitted curve, from the smallest to the largest size that was measured."""
    parameters = (fit.single_throughput_per_second, fit.contention, fit.coherency)
    return [
        {"connections": float(size), "throughput": usl(float(size), *parameters)}
        for size in np.geomspace(min(sizes), max(sizes), 60)
    ]


def wait_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """The percentiles of the wait by number of connections."""
    for each in groups:
        for name, field in PERCENTILES.items():
            value = getattr(each.wait, field)
            yield _row(each, percentile=name, wait=_shown(value), shown=show_seconds(value))


def heat_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """The p99 of the wait by pool and rate."""
    for each in groups:
        rate, wait = each.setting.rate_per_second, each.wait.p99
        if rate is not None and each.setting.group_size == 1:
            shown = show_seconds(wait)
            yield _row(each, rate=rate, wait=_shown(wait), shown=shown, lost=each.lost)


def time_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """Busy, overflowing and waiting, each second of the first repeat of each setting."""
    for each in groups:
        for sample in each.points[0].samples:
            parts = {
                "in use": sample.busy - sample.overflow,
                "overflow": sample.overflow,
                "waiting": sample.waiting,
            }
            for order, (what, number) in enumerate(parts.items()):
                yield {
                    "setting": str(each.setting),
                    "second": sample.at_seconds,
                    "until": sample.at_seconds + each.points[0].sample_seconds,
                    "what": what,
                    "order": order,
                    "number": number,
                }


def spectrum_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """Latency from the median on, the rare ones spread out as HdrHistogram's plots do."""
    for each in groups:
        found = recorded_in(each.latency)
        if found is None or each.latency.count == 0:
            continue
        for one_in in np.geomspace(2, max(each.latency.count, 2), 60).tolist():
            seconds = found.quantile(1 - 1 / one_in)
            yield _row(
                each,
                one_in=one_in,
                latency=_shown(seconds),
                shown=show_seconds(seconds),
                percentile=f"{100 * (1 - 1 / one_in):.5g} %",
            )


def prediction_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """The p99 of the wait: predicted, the range where the two agree, and measured."""
    for each in groups:
        for told in (told for point in each.points for told in point.predictions):
            if told.model == "G/G/c":
                yield _row(
                    each,
                    predicted=_shown(told.p99_predicted_seconds),
                    measured=_shown(told.p99_measured_seconds),
                    low=_shown(told.p99_low_seconds),
                    high=_shown(told.p99_high_seconds),
                    shown=f"{show_seconds(told.p99_predicted_seconds)} predicted, "
                    f"{show_seconds(told.p99_measured_seconds)} measured",
                )


HOLD_PARTS = ("statements", "idle in transaction", "commit", "connect and the rest")


def hold_rows(groups: Iterable[Repeats]) -> Iterator[Row]:
    """Where the mean hold goes, by pool; nothing where its split was not measured."""
    for each in groups:
        holds = [point.hold for point in each.points]
        checkouts = sum(hold.seconds.count for hold in holds)
        if not checkouts or any(hold.query_seconds is None for hold in holds):
            continue
        parts = [
            _total(hold.query_seconds for hold in holds),
            _total(hold.idle_in_transaction_seconds for hold in holds),
            _total(part for hold in holds for part in (hold.commit_seconds, hold.rollback_seconds)),
        ]
        parts.append(max(_total(hold.seconds for hold in holds) - sum(parts), 0.0))
        for place, (part, total) in enumerate(zip(HOLD_PARTS, parts, strict=True)):
            mean, row = total / checkouts, _row(each, part=part, place=place)
            yield row | {
                "series": each.setting.load_name,
                "milliseconds": mean * 1_000,
                "shown": show_seconds(mean),
            }


def _total(parts: Iterable[Durations | None]) -> float:
    return sum(part.total for part in parts if part)
