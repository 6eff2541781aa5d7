"""Shipped scenarios show what their sentences say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.servers.pgbouncer import find_pgbouncer, pgbouncer
from tests.integration.test_lab_service import point_of
from worker.lab.runner import BOUNCER
from worker.lab.scenario import BadScenario
from worker.lab.scenario_files import load_scenario
from worker.settings.settings import Settings

pytestmark = pytest.mark.long


async def test_a_cold_start_pays_for_its_connections_at_first(
    settings: Settings, tmp_path: Path
) -> None:
    it = load_scenario("cold-start", ["load.measure_seconds=4", "load.rate_per_second=60"])
    point = await point_of(it, settings, tmp_path)

    assert point.pool.connects >= 2
    assert point.pool.connect_seconds is not None
    assert point.pool.connect_seconds.count == point.pool.connects
    assert point.samples[0].connects >= point.pool.connects / 2
    first, last = point.samples[0].latency_p99_seconds, point.samples[-1].latency_p99_seconds
    assert first is not None
    assert last is not None
    assert first > last


async def test_a_slow_commit_is_told_apart_from_slow_queries(
    settings: Settings, tmp_path: Path
) -> None:
    changes = ["load.measure_seconds=3", "load.warm_up_seconds=0.5", "load.rate_per_second=60"]
    point = await point_of(load_scenario("slow-commit", changes), settings, tmp_path)

    assert point.hold.commit_seconds is not None
    assert point.hold.query_seconds is not None
    assert point.hold.commit_seconds.p50 >= 0.01
    assert point.hold.query_seconds.p50 < 0.01


@pytest.mark.skipif(find_pgbouncer() is None, reason="no PgBouncer")
async def test_pgbouncer_is_the_pool_that_counts(
    settings: Settings, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [
        "load.measure_seconds=4",
        "load.warm_up_seconds=0.5",
        "load.rate_per_second=100",
        "database.bouncer_pool_size=2",
        'step=[{kind="query", seconds=0.025}]',
    ]
    async with pgbouncer(database, pool_size=2) as url:
        monkeypatch.setenv(BOUNCER, url)
        point = await point_of(load_scenario("pgbouncer", changes), settings, tmp_path)

    # 2.5 connections' worth of work a second meets two sessions: the rest waits at the bouncer,
    # with a connection of ours in hand.
    assert max(each.sessions_max for each in point.server.activity) <= 2
    assert point.pool.busy_max > 2
    assert point.hold.seconds.p50 > 0.025
    assert point.throughput_per_second < 80
    assert set(point.errors) <= {"Unfinished", "TimeoutError"}


def test_a_bouncer_and_the_service_are_refused_together() -> None:
    with pytest.raises(BadScenario, match="runs without PgBouncer"):
        load_scenario("pgbouncer", ["path=service"])
