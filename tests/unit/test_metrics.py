"""What is measured is shown under its standard name, in seconds, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as text_string_to_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.util import greenlet_spawn

from tests.unit.test_command_meter import measure
from tests.unit.test_pool import make_pool
from worker.database.pool.metrics import reader_of
from worker.database.pool.pool import pool_of
from worker.service.instruments import INSTRUMENTS
from worker.service.service import Service
from worker.service.supervisor.metrics import merge
from worker.settings.settings import Settings
from worker.telemetry.health import Health

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def page(health: Health, accept: str = "*/*") -> tuple[str, str]:
    address = f"http://127.0.0.1:{health.port}/metrics"
    async with (
        aiohttp.ClientSession() as client,
        client.get(address, headers={"Accept": accept}) as answer,
    ):
        assert answer.status == 200
        return await answer.text(), answer.headers["Content-Type"]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_page_shows_the_pool_under_the_standard_names() -> None:
    pool = make_pool(size=2, overflow=3, logging_name="worker")
    connection = await greenlet_spawn(pool.connect)
    pool.meter.query.record(0.007)
    pool.meter.wait.record(0.3)
    pool.meter.timeouts = 4
    health = Health("127.0.0.1", 0)
    health.metrics.add(reader_of(lambda: pool))
    async with health:
        text, content_type = await page(health)
    await greenlet_spawn(connection.close)
    found = samples(text)
    name = ("db_client_connection_pool_name", "worker")

    def value(metric: str, *labels: tuple[str, str]) -> float:
        return found[metric, frozenset((name, *labels))]

    assert content_type.startswith("text/plain")
    assert value("db_client_connections", ("db_client_connection_state", "used")) == 1
    assert value("db_client_connections", ("db_client_connection_state", "idle")) == 0
    assert value("db_client_connection_max") == 5
    assert value("db_client_connection_idle_max") == 2
    assert value("db_client_connection_pending_requests") == 0
    assert value("db_client_connection_timeouts_total") == 4
    assert value("db_client_connection_wait_time_seconds_count") == 2
    assert value("db_client_connection_wait_time_seconds_sum") == pytest.approx(0.3)
    assert value("db_client_connection_wait_time_seconds_bucket", ("le", "0.1")) == 1
    assert value("db_client_connection_wait_time_seconds_bucket", ("le", "+Inf")) == 2
    system = ("db_system_name", "postgresql")
    assert value("db_client_operation_duration_seconds_bucket", system, ("le", "0.01")) == 1
    assert value("db_client_operation_duration_seconds_bucket", system, ("le", "0.005")) == 0


def make_service() -> Service:
    return Service(Settings.model_validate({"health": {"port": 0}}))


async def test_every_instrument_is_on_the_page_and_nothing_that_is_not_documented() -> None:
    async with make_service().health as health:
        text, _ = await page(health)
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

    expected = {instrument.prometheus_name for instrument in INSTRUMENTS}
    assert {name for name in shown if not name.startswith("process_")} == expected


async def test_open_metrics_is_spoken_where_it_is_asked_for() -> None:
    health = Health("127.0.0.1", 0)
    async with health:
        text, content_type = await page(health, "application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@asynccontextmanager
async def full_page() -> AsyncIterator[Health]:
    """The page of a worker with something in each instrument."""
    service = make_service()
    pool_of(service._engine).meter.query.record(0.007)
    service._topology_watch._counts["queue a"] += 1
    service._meter.postponed["OSError"] += 1
    await measure(service._meter)
    async with service.health as health:
        yield health


async def test_open_metrics_is_spoken_without_a_fault() -> None:
    async with full_page() as health:
        text, _ = await page(health, "application/openmetrics-text; version=1.0.0")
    families = {family.name for family in text_string_to_open_metrics(text)}  # type: ignore[no-untyped-call]

    assert {"db_client_connections", "worker_db_connection_created"} <= families


async def test_promtool_accepts_the_page_of_a_worker_and_that_of_several() -> None:
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "CI puts promtool on the PATH: .ci/promtool"
        pytest.skip("promtool is not here (Debian: prometheus); nothing of ours depends on it")
    async with full_page() as health:
        text, _ = await page(health)
    for shown in (text, merge({1: text, 2: text})):
        check = await asyncio.create_subprocess_exec(
            *("promtool", "check", "metrics"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await check.communicate(shown.encode())
        assert (check.returncode, said.decode()) == (0, "")


RESERVED = ("_count", "_sum", "_bucket", "_info")


def test_names_follow_the_rules() -> None:
    for instrument in INSTRUMENTS:
        assert not instrument.prometheus_name.endswith(RESERVED)
        assert instrument.meaning
    for instrument in INSTRUMENTS:
        assert instrument.name.startswith(("db.client.", "messaging.", "worker."))
        assert (instrument.kind == "counter") == instrument.prometheus_name.endswith("_total")
        assert ("_seconds" in instrument.prometheus_name) == (instrument.unit == "s")
        assert "." not in instrument.prometheus_name
    assert len({instrument.name for instrument in INSTRUMENTS}) == len(INSTRUMENTS)
