"""The numbers behind the plots, as plain rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9", "max")
LEAST_SHOWN_SECONDS = 1e-5
"""On a logarithmic axis nothing is 0: what is shorter is shown as this."""


def main_setting(result: Result, groups: Sequence[Repeats]) -> Setting:
    """The setting that the plots begin with: the one that all is about."""
    if result.answer is not None:
        return result.answer
    found = [each for each in groups if each.setting.load == "open"] or list(groups)
    found = [each for each in found if not each.dropped and not each.timeouts] or found
    return max(
        found,
        key=lambda each: (each.setting.rate_per_second or 0, -each.setting.max_overflow),
    ).setting


def throughput_rows(groups: Iterable[Repeats]) -> list[Row]:
    """Throughput and its interval by number of connections."""
    return [
        {
            "connections": each.setting.connections,
            "pool": each.setting.pool,
            "load": each.setting.load_name,
            "throughput": each.throughput,
            "low": each.throughput_interval.low,
            "high": each.throughput_interval.high,
            "state": "full" if each.is_full else "had room",
            "shown": f"{show_number(each.throughput)}/s "
            f"({show_number(each.throughput_interval.low)} to "
            f"{show_number(each.throughput_interval.high)})",
        }
        for each in groups
    ]


def curve_rows(fit: ScalabilityFit, sizes: Sequence[int]) -> list[Row]:
    """The fitted curve, from the smallest to the largest size that was measured."""
    parameters = (fit.single_throughput_per_second, fit.contention, fit.coherency)
    return [
        {"connections": float(size), "throughput": usl(float(size), *parameters)}
        for size in np.geomspace(min(sizes), max(sizes), 60)
    ]


def wait_rows(groups: Iterable[Repeats]) -> list[Row]:
    """The percentiles of the wait by number of connections."""
    return [
        {
            "connections": each.setting.connections,
            "pool": each.setting.pool,
            "load": each.setting.load_name,
            "series": each.setting.series,
            "percentile": name,
            "wait": max(value, LEAST_SHOWN_SECONDS),
            "shown": show_seconds(value),
        }
        for each in groups
        for name, value in zip(PERCENTILES, percentiles(each.wait), strict=True)
    ]


def percentiles(durations: Durations) -> tuple[float, ...]:
    """In the order of `PERCENTILES`."""
    found = durations
    return (found.p50, found.p90, found.p95, found.p99, found.p999, found.max)


def heat_rows(groups: Iterable[Repeats]) -> list[Row]:
    """The p99 of the wait by pool and rate."""
    return [
        {
            "pool": each.setting.pool,
            "order": each.setting.connections,
            "rate": each.setting.rate_per_second,
            "wait": max(each.wait.p99, LEAST_SHOWN_SECONDS),
            "shown": show_seconds(each.wait.p99),
            "lost": each.timeouts + each.dropped,
        }
        for each in groups
        if each.setting.rate_per_second is not None and each.setting.group_size == 1
    ]


def time_rows(groups: Iterable[Repeats]) -> list[Row]:
    """Busy, overflowing and waiting, each second of the first repeat of each setting."""
    rows = []
    for each in groups:
        point = each.points[0]
        for sample in point.samples:
            parts = {
                "in use": sample.busy - sample.overflow,
                "overflow": sample.overflow,
                "waiting": sample.waiting,
            }
            rows += [
                {
                    "setting": str(each.setting),
                    "second": sample.at_seconds,
                    "until": sample.at_seconds + point.sample_seconds,
                    "what": what,
                    "order": order,
                    "number": number,
                }
                for order, (what, number) in enumerate(parts.items())
            ]
    return rows


def spectrum_rows(groups: Iterable[Repeats]) -> list[Row]:
    """Latency from the median on, the rare ones spread out as HdrHistogram's plots do."""
    rows = []
    for each in groups:
        latency = each.latency
        found = recorded_in(latency)
        if found is None or latency.count == 0:
            continue
        for one_in in np.geomspace(2, max(latency.count, 2), 60):
            seconds = found.quantile(1 - 1 / one_in)
            rows.append(
                {
                    "pool": each.setting.pool,
                    "size": each.setting.pool_size,
                    "load": each.setting.load_name,
                    "series": each.setting.series,
                    "one_in": float(one_in),
                    "latency": max(seconds, LEAST_SHOWN_SECONDS),
                    "shown": show_seconds(seconds),
                    "percentile": f"{100 * (1 - 1 / one_in):.5g} %",
                }
            )
    return rows


def prediction_rows(groups: Iterable[Repeats]) -> list[Row]:
    """The p99 of the wait: predicted, the range where the two agree, and measured."""
    return [
        {
            "connections": each.setting.connections,
            "pool": each.setting.pool,
            "load": each.setting.load_name,
            "series": each.setting.series,
            "model": prediction.model,
            "predicted": max(prediction.p99_predicted_seconds, LEAST_SHOWN_SECONDS),
            "measured": max(prediction.p99_measured_seconds, LEAST_SHOWN_SECONDS),
            "low": max(prediction.p99_low_seconds, LEAST_SHOWN_SECONDS),
            "high": max(prediction.p99_high_seconds, LEAST_SHOWN_SECONDS),
            "shown": f"{show_seconds(prediction.p99_predicted_seconds)} predicted, "
            f"{show_seconds(prediction.p99_measured_seconds)} measured",
        }
        for each in groups
        for point in each.points
        for prediction in point.predictions
        if prediction.model == "G/G/c"
    ]


def hold_rows(groups: Iterable[Repeats]) -> list[Row]:
    """Where the mean hold goes, by pool; empty where its split was not measured."""
    rows = []
    for each in groups:
        holds = [point.hold for point in each.points]
        checkouts = sum(hold.seconds.count for hold in holds)
        if not checkouts or any(hold.query_seconds is None for hold in holds):
            continue
        total = _total(hold.seconds for hold in holds)
        parts = {
            "statements": _total(hold.query_seconds for hold in holds),
            "idle in transaction": _total(hold.idle_in_transaction_seconds for hold in holds),
            "commit": _total(hold.commit_seconds for hold in holds)
            + _total(hold.rollback_seconds for hold in holds),
        }
        parts["connect and the rest"] = max(total - sum(parts.values()), 0.0)
        rows += [
            {
                "pool": each.setting.pool,
                "order": each.setting.connections,
                "load": each.setting.load_name,
                "series": each.setting.load_name,
                "part": part,
                "place": place,
                "milliseconds": seconds / checkouts * 1_000,
                "shown": show_seconds(seconds / checkouts),
            }
            for place, (part, seconds) in enumerate(parts.items())
        ]
    return rows


def _total(parts: Iterable[Durations | None]) -> float:
    return sum(part.total for part in parts if part)
