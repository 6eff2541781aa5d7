"""Whether the database is up is its own to say, about what it is that is in doubt."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.engine import make_engine
from worker.database.health import DatabaseWatch
from worker.database.pool.pool import pool_of
from worker.processing.fault_kinds import FaultKind, classify, is_doubtful, is_of_connecting
from worker.settings.settings import DatabaseSettings, Settings
from worker.telemetry.readiness import Component

_FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no space left on device'; END $$"""
_ON_LEDGER = "CREATE TRIGGER full_disk BEFORE INSERT ON command_ledger EXECUTE FUNCTION full_disk()"


async def said(engine: AsyncEngine, code: str) -> DBAPIError:
    """What comes of a statement that the server answers with this code."""
    with pytest.raises(DBAPIError) as raised:
        async with engine.connect() as connection:
            await connection.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
            )
    return raised.value


@pytest.mark.parametrize("code", ["53100", "53200", "53400", "58030", "08006", "57P03"])
async def test_it_is_up_whatever_one_statement_met(engine: AsyncEngine, code: str) -> None:
    watch = DatabaseWatch(engine, Component("database"))

    assert await watch.is_up(await said(engine, code))
    async with engine.connect() as connection:
        assert not await connection.scalar(text("SELECT count(*) FROM command_ledger"))


@pytest.mark.parametrize(("code", "up"), [("53100", False), ("58030", False), ("53400", True)])
async def test_it_is_asked_for_room_where_that_is_in_doubt(
    engine: AsyncEngine, code: str, up: bool
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(_FULL))
        await connection.execute(text(_ON_LEDGER))
    watch = DatabaseWatch(engine, Component("database"))

    assert await watch.is_up(await said(engine, code)) is up
    assert pool_of(engine).snapshot().in_use == 0


@pytest.mark.parametrize("gone", ["port", "database"])
async def test_who_gets_no_connection_is_not_at_fault(settings: Settings, gone: str) -> None:
    url = settings.database.url.get_secret_value()
    base, _, name = url.rpartition("/")
    wrong = f"{base}/{name}_gone" if gone == "database" else "postgresql+asyncpg://x@127.0.0.1:1/x"
    engine = make_engine(DatabaseSettings.model_validate({"url": wrong}))
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of whatever type
        async with engine.connect():
            pass
    await engine.dispose()

    assert classify(raised.value) is FaultKind.OUTAGE
    assert is_of_connecting(raised.value)
    assert not is_doubtful(raised.value)
