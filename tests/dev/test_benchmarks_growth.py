"""Tables are filled as they would have grown, and growth is told from noise."""

from __future__ import annotations

import json

import asyncpg
import pytest

from dev.benchmarks.arena import servers
from dev.benchmarks.growth import report
from dev.benchmarks.growth.filling import add_rows
from dev.benchmarks.growth.station import Drained, creates, drained, fault
from dev.databases import dsn, fresh_database

pytestmark = pytest.mark.long

INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"


def turn(number: int, size: int, rate: float, **others: object) -> Drained:
    known = {"part": "rows", "keys": "random", "commands": 100, "peak_bytes": 90_000_000}
    return Drained.model_validate(known | {"round": number, "size": size, "rate": rate} | others)


def test_commands_are_new_each_time_and_their_keys_as_asked_for() -> None:
    both = creates(500, "time-ordered") + creates(500, "random")
    ids = [json.loads(body)["id"] for body in both]
    assert len(set(ids)) == 1_000
    assert [id_[:12] for id_ in ids[:500]] == sorted(id_[:12] for id_ in ids[:500])
    assert ids[500:] != sorted(ids[500:])


def test_rates_compare_within_a_round_only() -> None:
    turns = [turn(1, 0, 100), turn(1, 10, 90), turn(2, 0, 50), turn(2, 10, 55), turn(3, 10, 1)]
    empty, full = report.rows(turns, "rows")
    assert empty.compared is None
    assert full.compared is not None
    assert (full.compared.low, full.compared.high) == pytest.approx((0.9, 1.1))
    assert "| reached |" in report.markdown(turns)


def test_too_slow_too_big_and_not_once_are_told() -> None:
    turns = [turn(1, 0, 100), turn(1, 10, 50, peak_bytes=130_000_000, fault="99 events")]
    page = report.markdown(turns)
    assert page.count("| missed |") == 2
    assert "**round 1: 99 events**" in page


@pytest.mark.parametrize(("grown", "verdict"), [(1_000_000, "reached"), (3_000_000, "missed")])
def test_memory_that_grows_with_the_backlog_is_told(grown: int, verdict: str) -> None:
    memory = [(0.0, 20_000_000), (1.0, 90_000_000), (2.0, 90_000_000 + grown), (3.0, 90_000_000)]
    long = turn(1, 1_000, 100, part="backlog", commands=1_000, memory=memory)
    short = turn(1, 10, 100, part="backlog", commands=10, memory=[(0.0, 5_000_000)] * 9)
    assert report.growth(long) == grown
    (line,) = [
        line for line in report.markdown([short, long]).splitlines() if "memory grown" in line
    ]
    assert verdict in line


def test_what_was_not_done_once_is_a_fault() -> None:
    assert fault(1_000, 1_000, 1_000, 1_000) is None
    assert fault(1_000, 1_001, 1_000, 999) == "1,001 events, 999 ledger entries for 1,000 commands"


@pytest.mark.servers
async def test_a_filled_database_is_like_one_that_has_grown() -> None:
    async with (
        servers() as place,
        fresh_database(place.server_url, f"{place.template}_f", template=place.template) as url,
    ):
        connection = await asyncpg.connect(dsn(url))
        before = await connection.fetch(INDEXES)
        await add_rows(url, 1_000)
        assert await connection.fetch(INDEXES) == before
        for table in ("users", "command_ledger"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1_000
        oldest = "SELECT now() - min(recorded_on) < interval '7 days' FROM command_ledger"
        assert await connection.fetchval(oldest)
        await connection.close()
        blank = turn(1, 1_000, 0, commands=300)
        done = await drained(place, url, blank, environment={"WORKER_LANES": "2"})
    assert done.fault is None
    assert done.rate > 0
    assert done.peak_bytes > 20_000_000
    assert done.memory[0][0] == 0
