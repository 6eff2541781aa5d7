"""The table of what was measured: one definition for page, summary and terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NamedTuple

from worker.lab.measured import Point
from worker.lab.repeats import Repeats, mean
from worker.lab.units import show_number, show_seconds, show_share


class TableColumn(NamedTuple):
    """One column: a cell for the repeats of a setting, or for one of them alone."""

    title: str
    cell: Callable[[Repeats], str]
    brief: bool = False
    """Whether summary and terminal have it, too."""


def alone(point: Point) -> Repeats:
    """One measurement as a line of its own."""
    return Repeats(point.setting, (point,))


def _mean(path: str) -> Callable[[Repeats], str]:
    """The mean of a field over the points that have it."""
    part, _, field = path.partition(".")

    def cell(group: Repeats) -> str:
        values = [getattr(getattr(point, part), field, None) for point in group.points]
        found = [value for value in values if value is not None]
        return show_number(mean(found)) if found else "–"

    return cell


def _sum(part: Callable[[Point], int]) -> Callable[[Repeats], str]:
    return lambda group: show_number(sum(map(part, group.points)))


def _errors(group: Repeats) -> str:
    errors: Counter[str] = Counter()
    for point in group.points:
        errors.update(point.errors)
    return ", ".join(f"{code} × {count}" for code, count in sorted(errors.items())) or "–"


def _failed(group: Repeats) -> str:
    return ", ".join(sorted({check.name for check in group.failed_checks})) or "all passed"


def _done(group: Repeats) -> str:
    interval = group.throughput_interval
    spread = f"{show_number(interval.low)}–{show_number(interval.high)}"
    return f"{show_number(group.throughput)} ({spread})"


def _sessions(group: Repeats) -> str:
    """The states in which sessions were found, the most frequent first."""
    found: Counter[str] = Counter()
    for point in group.points:
        for each in point.server.activity:
            event = f" ({each.wait_event})" if each.wait_event else ""
            found[f"{each.state}{event}"] += each.sessions_mean / len(group.points)  # type: ignore[assignment]
    return ", ".join(f"{name} {show_number(number)}" for name, number in found.most_common(4))


COLUMNS = (
    TableColumn("pool", lambda each: each.pool, brief=True),
    TableColumn("load", lambda each: each.setting.load_words, brief=True),
    TableColumn("done/s (95 %)", _done, brief=True),
    TableColumn("wait p50", lambda each: show_seconds(each.wait.p50), brief=True),
    TableColumn("wait p99", lambda each: show_seconds(each.wait.p99), brief=True),
    TableColumn("p99.9", lambda each: show_seconds(each.wait.p999)),
    TableColumn("max", lambda each: show_seconds(each.wait.max)),
    TableColumn("waited", lambda each: show_share(mean(p.wait.waited_share for p in each.points))),
    TableColumn("lost", lambda each: show_number(each.lost), brief=True),
    TableColumn("hold mean", lambda each: show_seconds(each.hold.mean), brief=True),
    TableColumn("busy", lambda each: show_number(each.busy), brief=True),
    TableColumn("max", lambda each: str(max(point.pool.busy_max for point in each.points))),
    TableColumn("latency p99", lambda each: show_seconds(each.latency.p99), brief=True),
    TableColumn("errors", _errors),
    TableColumn("checks", _failed),
)
DETAILS = (
    TableColumn("measurement", str),
    *(
        TableColumn(name, _sum(attrgetter(f"load.{name}")))
        for name in ("intended", "started", "late", "dropped", "completed", "failed")
    ),
    TableColumn("busy p95", _mean("pool.busy_p95")),
    TableColumn(
        "overflow",
        lambda each: show_share(
            mean(point.pool.overflow_seconds / point.measured_seconds for point in each.points)
        ),
    ),
    TableColumn("connects/s", _mean("pool.connects_per_second")),
    TableColumn("queue mean", _mean("wait.queue_mean")),
    TableColumn("max", _mean("wait.queue_max")),
    TableColumn("max : median wait", _mean("wait.max_to_median")),
    TableColumn("Jain's index", _mean("wait.jain_index")),
    TableColumn("commits", _mean("server.commits")),
    TableColumn("lock waits", _mean("server.lock_wait_sessions_mean")),
    TableColumn("sessions by state and wait", _sessions),
    TableColumn("CPU database", _mean("server.cpu_cores")),
    TableColumn("worker", _mean("worker.cpu_cores")),
    TableColumn("generator", _mean("generator.cpu_cores")),
    TableColumn("others", _mean("host.others_cpu_cores")),
    TableColumn("loop lag p99", lambda each: show_seconds(each.loop_lag) if each.loop_lag else "–"),
)


def brief() -> tuple[TableColumn, ...]:
    """The columns that fit a terminal and a pull request."""
    return tuple(column for column in COLUMNS if column.brief)


def cells(columns: Iterable[TableColumn], group: Repeats) -> list[str]:
    """One line of the table."""
    return [column.cell(group) for column in columns]
