"""The lab works in a place of its own, and leaves nothing there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from tests.support.lab import bench, rows, short
from worker.core.errors import Misconfigured
from worker.database.capacity import Room
from worker.lab.runner import BOUNCER, check_fits, pool_url
from worker.lab.sandbox import _COMMENT, PREFIX, open_sandbox
from worker.lab.scenario import BadScenario
from worker.lab.scenario_files import load_scenario
from worker.settings.settings import DatabaseSettings

DATABASES = "SELECT datname::text FROM pg_database WHERE datname = $1"
SCHEMAS = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, $1)"
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
    async with open_sandbox(settings(database)) as sandbox:
        assert sandbox.database == sandbox.name
        assert await rows(database, DATABASES, sandbox.name)
        inside = sandbox.settings.url.get_secret_value()
        assert await rows(inside, SCHEMAS, PREFIX) == [(sandbox.name,)]
        assert not await rows(database, SCHEMAS, PREFIX)
    assert not await rows(database, DATABASES, sandbox.name)
    assert not await rows(database, SESSIONS, sandbox.name)


@pytest.mark.parametrize("into_service", [False, True])
async def test_two_labs_work_side_by_side_and_each_removes_its_own(
    database: str, into_service: bool
) -> None:
    async with open_sandbox(settings(database), into_service=into_service) as one:
        async with open_sandbox(settings(database), into_service=into_service) as other:
            assert one.name != other.name
        inside = one.settings.url.get_secret_value()
        assert await rows(inside, SCHEMAS, PREFIX) == [(one.name,)]
        assert await rows(inside, f'SELECT count(*) FROM "{one.name}".items') == [(10_000,)]
    assert not await rows(database, DATABASES, one.name)


async def test_what_a_killed_run_left_is_removed_by_the_next_and_nothing_else_is(
    database: str,
) -> None:
    ours, theirs = f"{PREFIX}{uuid4().hex[:8]}", f"{PREFIX}{uuid4().hex[:8]}"
    for name in (ours, theirs):
        await rows(database, f"CREATE DATABASE {name} ALLOW_CONNECTIONS false")
    # Killed while it played a restart: nobody may connect.
    await rows(database, f"COMMENT ON DATABASE {ours} IS '{_COMMENT}shop'")
    await rows(database, f"CREATE SCHEMA {ours}")
    try:
        async with (
            open_sandbox(settings(database)) as living,
            open_sandbox(settings(database)) as following,
        ):
            assert ours in {*living.leftovers, *following.leftovers}
            assert living.name not in following.leftovers
            assert not await rows(database, DATABASES, ours)
            assert not await rows(database, SCHEMAS, ours)
            assert await rows(database, DATABASES, living.name)
            # It was not the lab that made it, so it is not the lab that removes it.
            assert await rows(database, DATABASES, theirs)
    finally:
        await rows(database, f"DROP DATABASE {theirs}")


async def test_a_database_with_a_name_that_must_be_quoted_has_a_lab_beside_it(
    database: str,
) -> None:
    name = f"it's: {uuid4().hex[:8]}"
    await rows(database, f'CREATE DATABASE "{name}"')
    url = make_url(database).set(database=name).render_as_string(hide_password=False)
    try:
        async with open_sandbox(settings(url)) as sandbox:
            told = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname=$1"
            assert await rows(database, told, sandbox.name) == [(_COMMENT + name,)]
        assert not await rows(database, DATABASES, sandbox.name)
    finally:
        await rows(database, f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_it_works_in_the_services_database_only_when_told_to(database: str) -> None:
    async with open_sandbox(settings(database), into_service=True) as sandbox:
        assert sandbox.database == make_url(database).database
        assert await rows(database, SCHEMAS, PREFIX) == [(sandbox.name,)]
    assert not await rows(database, SCHEMAS, PREFIX)


async def test_an_account_that_may_make_no_database_is_told_what_to_run(limited: str) -> None:
    with pytest.raises(Misconfigured, match='ALTER ROLE "lab_guest" CREATEDB'):
        async with open_sandbox(settings(limited)):
            pass


async def test_a_failure_leaves_nothing_either(database: str) -> None:
    names = []

    async def fail() -> None:
        async with bench(database) as it, it.sandbox.outside.connect() as connection:
            names.append(it.sandbox.name)
            await connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError):
        await fail()
    assert not await rows(database, DATABASES, *names)


def test_more_connections_than_the_server_has_are_refused_by_name() -> None:
    room = Room(100, reserved=3, others=12, processes=1, pool_size=4, max_overflow=0)
    check_fits([short("steady", "pool.pool_size=75")], room)
    with pytest.raises(BadScenario) as told:
        check_fits([short("steady", "pool.pool_size=76"), short()], room)
    words = str(told.value)
    assert "pool.pool_size=76 and pool.max_overflow=5 may open 81 connections" in words
    assert "room for 80" in words
    assert "max_connections=100" in words


async def test_a_bouncer_is_reached_by_the_address_of_ones_own_and_wanted_in_vain_without(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = load_scenario("pgbouncer")
    async with open_sandbox(settings(database)) as sandbox:
        assert pool_url(sandbox, short()) == sandbox.settings.url.get_secret_value()
        for address in ("", "no address"):
            monkeypatch.setenv(BOUNCER, address)
            with pytest.raises(BadScenario, match="set PGBOUNCER_URL="):
                pool_url(sandbox, behind)
        monkeypatch.setenv(BOUNCER, "postgresql+asyncpg://ann:secret@bouncer:6432/")
        expected = f"postgresql+asyncpg://ann:secret@bouncer:6432/{sandbox.name}"
        assert pool_url(sandbox, behind) == expected
