"""The second table of the page: what was measured beside the waits, and on the server."""

from __future__ import annotations

from worker.lab.report.words import point_name
from worker.lab.results import Point, Process
from worker.lab.units import show_number, show_seconds, show_share

COLUMNS = (
    "measurement",
    "intended",
    "started",
    "late",
    "dropped",
    "completed",
    "failed",
    "busy p95",
    "overflow",
    "connects/s",
    "queue mean",
    "max",
    "max : median wait",
    "Jain's index",
    "commits",
    "lock waits",
    "sessions by state and wait",
    "CPU database",
    "worker",
    "generator",
    "loop lag p99",
)


def detail_cells(point: Point) -> tuple[str, ...]:
    """One line of the table."""
    load, wait, pool, server = point.load, point.wait, point.pool, point.server
    counts = (load.intended, load.started, load.late, load.dropped, load.completed, load.failed)
    lag = point.worker.loop_lag_seconds if point.worker else None
    return (
        point_name(point),
        *(show_number(count) for count in counts),
        show_number(pool.busy_p95),
        show_share(pool.overflow_seconds / point.measured_seconds),
        show_number(pool.connects_per_second),
        show_number(wait.queue_mean),
        show_number(wait.queue_max),
        _optional(wait.max_to_median),
        _optional(wait.jain_index),
        _optional(server.commits),
        show_number(server.lock_wait_sessions_mean),
        _activity(point),
        _optional(server.cpu_cores),
        _cpu(point.worker),
        _cpu(point.generator),
        show_seconds(lag.p99) if lag else "–",
    )


def _activity(point: Point) -> str:
    """The states in which sessions were found, the most frequent first."""
    found = sorted(point.server.activity, key=lambda each: -each.sessions_mean)
    return ", ".join(
        f"{each.state}{f' ({each.wait_event})' if each.wait_event else ''} "
        f"{show_number(each.sessions_mean)}"
        for each in found[:4]
    )


def _cpu(process: Process | None) -> str:
    return show_number(process.cpu_cores) if process else "–"


def _optional(value: float | None) -> str:
    return "–" if value is None else show_number(value)
