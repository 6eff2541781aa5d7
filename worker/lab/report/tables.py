"""CSV files: a line for each point, and a line for each second of each point."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.lab.durations import Durations, Model
from worker.lab.measured import Point
from worker.lab.results import Result

Cells = dict[str, Any]


def write_tables(result: Result, folder: Path) -> list[Path]:
    """Write `points.csv` and `seconds.csv`; return them. Durations are in seconds."""
    points, seconds = folder / "points.csv", folder / "seconds.csv"
    _write(points, [point_cells(point) for point in result.points])
    _write(seconds, [cells for point in result.points for cells in second_cells(point)])
    return [points, seconds]


def point_cells(point: Point) -> Cells:
    """All numbers of a point but its histograms and its samples."""
    load, wait, hold, pool = point.load, point.wait, point.hold, point.pool
    lag = point.worker.loop_lag_seconds if point.worker else None
    return {
        **_setting_cells(point),
        "started_at": point.started_at.isoformat(),
        "measured_seconds": point.measured_seconds,
        **_named(load, "intended", "started", "late", "dropped", "completed", "failed"),
        "throughput_per_second": point.throughput_per_second,
        **_durations("wait", wait.seconds),
        **_named(wait, "waited_share", "timeouts", "queue_mean", "queue_max"),
        "max_to_median_wait": wait.max_to_median,
        "jain_index": wait.jain_index,
        **_durations("hold", hold.seconds),
        **_durations("query", hold.query_seconds),
        **_durations("idle_in_transaction", hold.idle_in_transaction_seconds),
        **_durations("commit", hold.commit_seconds),
        **_durations("connect", pool.connect_seconds),
        **_named(pool, "connects", "connects_per_second", "busy_mean", "busy_p95", "busy_max"),
        **_named(pool, "overflow_seconds", "still_out"),
        **_durations("latency", point.latency_seconds),
        "errors": " ".join(f"{code}={count}" for code, count in sorted(point.errors.items())),
        **_named(point.server, "lock_wait_sessions_mean", "commits"),
        "database_cpu_cores": point.server.cpu_cores,
        "worker_cpu_cores": point.worker and point.worker.cpu_cores,
        "loop_lag_p99_seconds": lag and lag.p99,
        "generator_cpu_cores": point.generator and point.generator.cpu_cores,
        "others_cpu_cores": point.host and point.host.others_cpu_cores,
        "failed_checks": " ".join(check.name for check in point.checks if not check.passed),
    }


def _named(part: Model, *names: str) -> Cells:
    return {name: getattr(part, name) for name in names}


def second_cells(point: Point) -> list[Cells]:
    """The samples of a point, each with its setting."""
    return [{**_setting_cells(point), **sample.model_dump()} for sample in point.samples]


def _setting_cells(point: Point) -> Cells:
    return {**point.setting.model_dump(), "repeat": point.repeat}


def _durations(name: str, found: Durations | None) -> Cells:
    names = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
    return {f"{name}_{part}_seconds": getattr(found, part) if found else None for part in names}


def _write(path: Path, lines: Sequence[Cells]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=lines[0] if lines else (), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
