"""What the page and the summary say in words and cells."""

from __future__ import annotations

from typing import NamedTuple

from worker.lab.findings import Check
from worker.lab.repeats import by_setting
from worker.lab.report.rows import load_name, pool_name
from worker.lab.results import Point, Result
from worker.lab.units import counted, show_number, show_seconds, show_share


class Headline(NamedTuple):
    """The first thing that is read."""

    good: bool
    words: str


class Row(NamedTuple):
    """One point in the table of all points."""

    failed: bool
    cells: tuple[str, ...]


POINT_COLUMNS = (
    "pool",
    "load",
    "repeat",
    "done/s",
    "wait p50",
    "p99",
    "p99.9",
    "max",
    "waited",
    "lost",
    "hold mean",
    "busy mean",
    "max",
    "latency p99",
    "errors",
    "checks",
)


def title_of(result: Result) -> str:
    """What was run."""
    return f"Pool lab: {result.kind}, {result.about.scenario}"


def headline(result: Result) -> Headline:
    """The recommendation, or why there is none."""
    if result.recommendation is not None:
        return Headline(True, result.recommendation.sentence)
    if result.capacity_per_second is not None:
        objective = show_seconds(result.about.objective.wait_p99_seconds)
        return Headline(
            True,
            f"This pool keeps the objective (p99 wait {objective}) up to "
            f"{show_number(result.capacity_per_second)} arrivals a second.",
        )
    if result.kind == "run" and result.points and not result.partial:
        return _verdict(result)
    return Headline(False, result.no_recommendation_because or "The result was not analysed.")


def _verdict(result: Result) -> Headline:
    """Of one setting there is nothing to choose, but whether it keeps the objective."""
    group, objective = by_setting(result.points)[0], result.about.objective
    pool, setting = f"A pool of {pool_name(group.setting)}", group.setting
    if setting.load == "closed":
        clients = counted(setting.clients or 0, "client")
        words = f"{pool} does {show_number(group.throughput)}/s for {clients}."
        return Headline(not failed_checks(result), words)
    kept = group.wait.p99 <= objective.wait_p99_seconds and not group.timeouts + group.dropped
    lost = counted(group.timeouts + group.dropped, "arrival")
    words = (
        f"{pool} {'keeps' if kept else 'misses'} the objective at {load_name(setting)}: "
        f"a checkout waits {show_seconds(group.wait.p99)} at p99 "
        f"(objective {show_seconds(objective.wait_p99_seconds)})"
        + ("." if not group.timeouts + group.dropped else f", {lost} were lost.")
    )
    return Headline(kept and not failed_checks(result), words)


def failed_checks(result: Result) -> list[tuple[str, Check]]:
    """Every check that failed, with what it was asked of."""
    run = [("the run", check) for check in result.checks if not check.passed]
    points = [
        (point_name(point), check)
        for point in result.points
        for check in point.checks
        if not check.passed
    ]
    return run + points


def troubles(result: Result) -> list[tuple[str, Check]]:
    """The failed checks, those that say the same of many points only once."""
    seen: dict[tuple[str, str], tuple[str, Check]] = {}
    for where, check in failed_checks(result):
        pool = where.partition(", repeat")[0]
        seen.setdefault((pool, check.name), (pool, check))
    return list(seen.values())


def point_name(point: Point) -> str:
    """The point in words."""
    setting = point.setting
    return f"pool {pool_name(setting)}, {load_name(setting)}, repeat {point.repeat + 1}"


def point_rows(result: Result) -> list[Row]:
    """The table of all points, small pools first."""
    ordered = sorted(
        result.points,
        key=lambda point: (
            load_name(point.setting),
            point.setting.connections,
            point.setting.pool_size,
            point.repeat,
        ),
    )
    return [_row(point) for point in ordered]


def _row(point: Point) -> Row:
    failed = [check.name for check in point.checks if not check.passed]
    wait, pool = point.wait, point.pool
    return Row(
        bool(failed),
        (
            pool_name(point.setting),
            load_name(point.setting),
            str(point.repeat + 1),
            show_number(point.throughput_per_second),
            show_seconds(wait.seconds.p50),
            show_seconds(wait.seconds.p99),
            show_seconds(wait.seconds.p999),
            show_seconds(wait.seconds.max),
            show_share(wait.waited_share),
            show_number(wait.timeouts + point.load.dropped),
            show_seconds(point.hold.seconds.mean),
            show_number(pool.busy_mean),
            show_number(pool.busy_max),
            show_seconds(point.latency_seconds.p99),
            ", ".join(f"{code} × {count}" for code, count in sorted(point.errors.items())) or "–",
            ", ".join(failed) or "all passed",
        ),
    )


def about_rows(result: Result) -> list[tuple[str, str]]:
    """Of what, when, where and how."""
    about = result.about
    minutes = (about.ended_at - about.started_at).total_seconds() / 60
    place = "on the same machine" if about.machine.database_is_local else "on another machine"
    return [
        ("command", " ".join(about.command) or "–"),
        ("scenario", about.scenario),
        ("began", f"{about.started_at:%Y-%m-%d %H:%M:%S} UTC, took {show_number(minutes)} min"),
        ("seed", str(about.seed)),
        (
            "objective",
            f"wait p99 {show_seconds(about.objective.wait_p99_seconds)}, of which "
            f"{show_share(about.objective.headroom)} stay free",
        ),
        (
            "machine",
            f"{about.machine.cpu}, {about.machine.cores} cores, "
            f"{about.machine.memory_bytes / 2**30:.0f} GiB, {about.machine.system}",
        ),
        ("database", place),
        ("versions", ", ".join(f"{name} {version}" for name, version in about.versions.items())),
    ]
