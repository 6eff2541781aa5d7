"""CSV files: a line for each point, and a line for each second of each point."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from worker.lab.durations import Durations
from worker.lab.results import Point, Result, Sample

Cells = dict[str, Any]


def write_tables(result: Result, folder: Path) -> list[Path]:
    """Write `points.csv` and `seconds.csv`; return them. Durations are in seconds."""
    points, seconds = folder / "points.csv", folder / "seconds.csv"
    _write(points, [point_cells(point) for point in result.points])
    _write(seconds, [cells for point in result.points for cells in second_cells(point)])
    return [points, seconds]


def point_cells(point: Point) -> Cells:
    """All numbers of a point but its histograms and its samples."""
    load, wait, pool, server = point.load, point.wait, point.pool, point.server
    return {
        **_setting_cells(point),
        "started_at": point.started_at.isoformat(),
        "measured_seconds": point.measured_seconds,
        "intended": load.intended,
        "started": load.started,
        "late": load.late,
        "dropped": load.dropped,
        "completed": load.completed,
        "failed": load.failed,
        "throughput_per_second": point.throughput_per_second,
        **_durations("wait", wait.seconds),
        "waited_share": wait.waited_share,
        "timeouts": wait.timeouts,
        "queue_mean": wait.queue_mean,
        "queue_max": wait.queue_max,
        "max_to_median_wait": wait.max_to_median,
        "jain_index": wait.jain_index,
        **_durations("hold", point.hold.seconds),
        **_durations("query", point.hold.query_seconds),
        **_durations("idle_in_transaction", point.hold.idle_in_transaction_seconds),
        **_durations("commit", point.hold.commit_seconds),
        **_durations("connect", pool.connect_seconds),
        "connects": pool.connects,
        "connects_per_second": pool.connects_per_second,
        "busy_mean": pool.busy_mean,
        "busy_p95": pool.busy_p95,
        "busy_max": pool.busy_max,
        "overflow_seconds": pool.overflow_seconds,
        "still_out": pool.still_out,
        **_durations("latency", point.latency_seconds),
        "errors": " ".join(f"{code}={count}" for code, count in sorted(point.errors.items())),
        "lock_wait_sessions_mean": server.lock_wait_sessions_mean,
        "commits": server.commits,
        "database_cpu_cores": server.cpu_cores,
        "worker_cpu_cores": point.worker.cpu_cores if point.worker else None,
        "loop_lag_p99_seconds": point.worker.loop_lag_seconds.p99
        if point.worker and point.worker.loop_lag_seconds
        else None,
        "generator_cpu_cores": point.generator.cpu_cores if point.generator else None,
        "others_cpu_cores": point.host.others_cpu_cores if point.host else None,
        "failed_checks": " ".join(check.name for check in point.checks if not check.passed),
    }


def second_cells(point: Point) -> list[Cells]:
    """The samples of a point, each with its setting."""
    names = tuple(Sample.model_fields)
    return [
        {**_setting_cells(point), **{name: getattr(sample, name) for name in names}}
        for sample in point.samples
    ]


def _setting_cells(point: Point) -> Cells:
    return {**point.setting.model_dump(), "repeat": point.repeat}


def _durations(name: str, found: Durations | None) -> Cells:
    names = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
    return {f"{name}_{part}_seconds": getattr(found, part) if found else None for part in names}


def _write(path: Path, lines: Sequence[Cells]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=_names(lines), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _names(lines: Iterable[Cells]) -> list[str]:
    return list(next(iter(lines), {}))
