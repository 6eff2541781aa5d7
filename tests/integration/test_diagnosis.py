"""What only time or another server makes a fault of is found, too: no check is without effect."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.harness import Harness
from worker.core.findings import Finding
from worker.database.diagnosis import CHECKS, examine_database, run

BY_CODE = {check.code: check for check in CHECKS}
SOONER = {"5 minutes": "0 s", "5 seconds": "0 s", "n_dead_tup > 100000": "n_dead_tup >= 0"}
MORE = {
    "server_version": ("< 150000", "< 990000"),
    "encoding": ("<> 'UTF8'", "= 'UTF8'"),
    "collation": (" AND datcollversion <> pg_database_collation_actual_version(oid)", ""),
    "dead_rows": ("n_dead_tup > n_live_tup", "n_dead_tup >= 0"),
}


async def found(engine: AsyncEngine, code: str) -> list[Finding]:
    """What the check finds with the least of its bounds."""
    query = BY_CODE[code].query
    for bound, less in (*SOONER.items(), *([MORE[code]] if code in MORE else [])):
        query = query.replace(bound, less)
    async with engine.connect() as connection:
        oid = await connection.scalar(text("SELECT 'users'::regclass::oid"))
    return [it async for it in run(engine, replace(BY_CODE[code], query=query), [int(oid or 0)])]


@pytest.mark.parametrize("code", MORE)
async def test_a_check_that_no_test_can_plant_fills_its_words(
    engine: AsyncEngine, code: str
) -> None:
    findings = await found(engine, code)

    assert findings
    for finding in findings:
        assert "could not be looked at" not in finding.what
        assert "{" not in finding.what + finding.fix


async def test_long_transactions_and_waits_are_found_with_who_causes_them(
    engine: AsyncEngine, harness: Harness
) -> None:
    await harness.rows("INSERT INTO users (username, email) VALUES ('ann', 'a@b.de')")
    async with harness.pool.acquire() as holder, harness.pool.acquire() as waiter:
        pid = await holder.fetchval("SELECT pg_backend_pid()")
        await holder.execute("BEGIN; UPDATE users SET rating = 1")
        waiting = asyncio.create_task(waiter.execute("UPDATE users SET rating = 2"))
        while not (waits := await found(engine, "lock_wait")):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.02)
        transactions = await found(engine, "long_transaction")
        await holder.execute("ROLLBACK")
        await waiting

    assert f"[{pid}]" in waits[0].what
    assert f"SELECT pg_terminate_backend({pid})" in [it.fix for it in transactions]


async def test_a_check_that_is_not_allowed_is_a_note(engine: AsyncEngine) -> None:
    check = replace(BY_CODE["durability"], query="SELECT pg_read_file('/no/such/file')")
    (finding,) = [it async for it in run(engine, check, [])]

    assert finding.level == "note"
    assert "could not be looked at" in finding.what


async def test_all_is_looked_at_where_nothing_is_wrong(engine: AsyncEngine) -> None:
    findings = [it async for it in examine_database(engine, (), processes=1)]

    assert {it.code for it in findings} <= {"durability", "connections", "server_version"}
