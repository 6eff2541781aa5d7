"""Behind PgBouncer in transaction mode: every transaction may run in another session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from dev.servers.install import Apt
from dev.servers.pgbouncer import find_pgbouncer, pgbouncer
from tests.support.harness import Harness
from worker.database.engine import make_engine
from worker.settings.settings import DatabaseSettings

SESSIONS = 2
"""Of the bouncer, for many more connections of ours."""


@pytest.fixture
async def bouncer(database: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of this test's database behind a PgBouncer."""
    if find_pgbouncer() is None:
        if not os.environ.get("CI"):
            pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
        await asyncio.to_thread(Apt(tmp_path / "apt.log").install, ["PgBouncer"])
    async with pgbouncer(database, pool_size=SESSIONS) as url:
        yield url


async def test_a_worker_does_all_its_work_through_it(harness: Harness, bouncer: str) -> None:
    behind = harness.settings.database.model_copy(
        update={
            "url": type(harness.settings.database.url)(bouncer),
            "transaction_pooler": True,
            "pool_size": 10,
        }
    )
    async with harness.worker(database=behind, lanes=8, group_size=4):
        ids = [
            await harness.send(
                "user.create", data={"username": f"user-{n}", "email": f"user-{n}@example.com"}
            )
            for n in range(60)
        ]
        events = [await harness.event(id_) for id_ in ids]
        refused = await harness.ask(
            "user.create", data={"username": "user-1", "email": "other@example.com"}
        )

    assert {event.routing_key for event in events} == {"user.created"}
    assert refused.data["code"] == "conflict"
    assert len(await harness.rows("SELECT * FROM users")) == 60


@pytest.mark.long
async def test_no_statement_meets_that_of_another_or_stays(
    database: str, bouncer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(
        DatabaseSettings.model_validate(
            {"url": bouncer, "transaction_pooler": True, "pool_size": 12, "max_overflow": 0}
        )
    )

    async def transactions(number: int) -> int:
        total = 0
        for turn in range(20):
            # Names that the driver gives by itself are counted in each process from the start.
            monkeypatch.setattr(asyncpg.connection, "_uid", 0)
            async with engine.begin() as connection:
                # The same statement again and again, prepared in another session before …
                same = text("SELECT CAST(:turn AS int)")
                assert await connection.scalar(same, {"turn": turn}) == turn
                # … and different ones, an array and JSON among them, and a savepoint.
                statement = text(
                    "SELECT sum(n) + :more, CAST('{\"a\": 1}' AS jsonb)"
                    f" FROM unnest(CAST(:list AS int[])) AS n -- {number} {turn}"
                )
                row = (await connection.execute(statement, {"list": [1, turn], "more": 1})).one()
                async with connection.begin_nested():
                    await connection.execute(text("SELECT 1"))
                total += row[0]
                assert row[1] == {"a": 1}
        return total

    try:
        totals = await asyncio.gather(*(transactions(number) for number in range(12)))
        assert totals == [sum(1 + turn + 1 for turn in range(20))] * 12
        async with engine.begin() as connection:
            prepared = await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        assert prepared == 0
    finally:
        await engine.dispose()
    assert await sessions(database) == 0


async def sessions(database: str) -> int:
    """Transactions that somebody has left open in the database."""
    url = make_url(database).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
        )
    finally:
        await connection.close()
    return found


async def test_without_the_setting_it_is_refused_at_once(bouncer: str) -> None:
    """Not now and then, under load: that is what makes it safe to forget."""
    engine = make_engine(DatabaseSettings.model_validate({"url": bouncer}))
    with pytest.raises((DBAPIError, asyncpg.PostgresError), match="unsupported startup parameter"):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
