"""The lab works in a place of its own, and leaves nothing there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from dev.databases import database_url
from tests.support.lab import bench, rows, short
from worker.core.errors import Misconfigured
from worker.lab.campaign import check_fits
from worker.lab.observer import Limits
from worker.lab.place import DATABASE, PREFIX, open_place
from worker.lab.scenario import BadScenario
from worker.settings.settings import DatabaseSettings

DATABASES = "SELECT datname FROM pg_database WHERE datname = $1"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)"
SESSIONS = "SELECT application_name FROM pg_stat_activity WHERE starts_with(application_name, $1)"


def settings(url: str) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": url})


@pytest.fixture
async def limited(server_url: str) -> AsyncIterator[str]:
    """Address of an account that may log in, and nothing else."""
    await rows(server_url, "CREATE ROLE lab_guest LOGIN PASSWORD 'guest'")
    url = make_url(server_url).set(username="lab_guest", password="guest")
    yield url.render_as_string(hide_password=False)
    await rows(server_url, "DROP ROLE lab_guest")


async def test_a_run_works_beside_the_service_and_leaves_nothing(database: str) -> None:
    async with open_place(settings(database), ["users"]) as place:
        assert place.database == DATABASE
        assert await rows(database, DATABASES, DATABASE)
        inside = place.settings.url.get_secret_value()
        assert await rows(inside, SCHEMAS, PREFIX) == [(place.schema,)]
        assert not await rows(database, SCHEMAS, PREFIX)
    assert not await rows(database, DATABASES, DATABASE)
    assert not await rows(database, SESSIONS, place.schema)


async def test_two_labs_work_side_by_side_and_the_last_one_clears_up(database: str) -> None:
    async with open_place(settings(database), []) as one:
        async with open_place(settings(database), []) as other:
            assert one.schema != other.schema
        inside = one.settings.url.get_secret_value()
        assert await rows(inside, SCHEMAS, PREFIX) == [(one.schema,)]
    assert not await rows(database, DATABASES, DATABASE)


async def test_what_a_killed_run_left_is_removed_by_the_next_and_a_living_one_is_not(
    database: str,
) -> None:
    async with open_place(settings(database), []) as living:
        inside = living.settings.url.get_secret_value()
        dead = f"{PREFIX}dead0001"
        await rows(inside, f'CREATE SCHEMA "{dead}"')
        await rows(inside, f'CREATE TABLE "{dead}".items (id int)')
        async with open_place(settings(database), []) as following:
            schemas = {name for (name,) in await rows(inside, SCHEMAS, PREFIX)}
            assert schemas == {living.schema, following.schema}


async def test_a_run_killed_while_it_played_a_restart_keeps_nobody_out(database: str) -> None:
    async with open_place(settings(database), []):
        pass
    await rows(database, f"CREATE DATABASE {DATABASE} ALLOW_CONNECTIONS false")
    try:
        async with open_place(settings(database), []) as place:
            assert await rows(place.settings.url.get_secret_value(), "SELECT 1") == [(1,)]
    finally:
        # It was not the lab that made it, so it is not the lab that removes it.
        await rows(database, f"DROP DATABASE {DATABASE}")


async def test_a_lab_database_with_the_services_tables_is_not_written_to(database: str) -> None:
    await rows(database, f"CREATE DATABASE {DATABASE}")
    inside = database_url(database, DATABASE)
    try:
        await rows(inside, "CREATE TABLE orders (id int)")
        with pytest.raises(Misconfigured, match=r"holds tables of the service \(orders\)"):
            async with open_place(settings(database), ["users", "orders"]):
                pass
        assert not await rows(inside, SCHEMAS, PREFIX)
    finally:
        await rows(database, f"DROP DATABASE {DATABASE}")


async def test_it_works_in_the_services_database_only_when_told_to(database: str) -> None:
    async with open_place(settings(database), ["users"], into_service=True) as place:
        assert place.database == make_url(database).database
        assert await rows(database, SCHEMAS, PREFIX) == [(place.schema,)]
    assert not await rows(database, SCHEMAS, PREFIX)


async def test_an_account_that_may_make_no_database_is_told_what_to_run(limited: str) -> None:
    with pytest.raises(Misconfigured, match='CREATE DATABASE worker_lab OWNER "lab_guest"'):
        async with open_place(settings(limited), []):
            pass


async def test_a_failure_leaves_nothing_either(database: str) -> None:
    async def fail() -> None:
        async with bench(database) as it, it.place.outside.connect() as connection:
            await connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError):
        await fail()
    assert not await rows(database, DATABASES, DATABASE)


def test_more_connections_than_the_server_has_are_refused_by_name() -> None:
    limits = Limits(max_connections=100, reserved=3, others=12)
    check_fits([short("steady", "pool.pool_size=75")], limits)
    with pytest.raises(BadScenario) as told:
        check_fits([short("steady", "pool.pool_size=76"), short()], limits)
    words = str(told.value)
    assert "pool.pool_size=76 and pool.max_overflow=5 may open 81 connections" in words
    assert "room for 80" in words
    assert "max_connections=100" in words
