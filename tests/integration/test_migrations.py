"""The schema: made, unmade, complete, and enforced by the database itself."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pytest_alembic.config import Config
from pytest_alembic.tests import (  # noqa: F401 - pytest runs what it finds here
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Column, Integer, MetaData, NullPool, Table, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from structlog.testing import capture_logs

from tests.support.harness import eventually
from worker.core.errors import Misconfigured
from worker.core.models import Base
from worker.database.migrations import check_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture
def alembic_config() -> Config:
    return Config(config_options={"file": str(ROOT / "alembic.ini")})


@pytest.fixture
async def alembic_engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    # No pool: each of its tests uses the engine from an event loop of its own.
    engine = create_async_engine(empty_database, poolclass=NullPool)
    yield engine
    await engine.dispose()


async def alembic(url: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "alembic",
        *arguments,
        cwd=cwd,
        env={**os.environ, "WORKER_DATABASE__URL": url, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def connect(url: str) -> asyncpg.Connection[Any]:
    plain = make_url(url).set(drivername="postgresql")
    return await asyncpg.connect(plain.render_as_string(hide_password=False))


async def tables(url: str) -> set[str]:
    connection = await connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows}


@pytest.mark.long
async def test_alembics_own_commands_work(empty_database: str) -> None:
    await alembic(empty_database, "upgrade", "head")
    assert await tables(empty_database) == {
        "alembic_version",
        "command_ledger",
        "orders",
        "users",
    }
    assert "No new upgrade operations detected" in await alembic(empty_database, "check")
    await alembic(empty_database, "downgrade", "-1")
    await alembic(empty_database, "downgrade", "base")
    assert await tables(empty_database) == {"alembic_version"}


@pytest.mark.long
async def test_offline_sql_makes_the_same_schema(empty_database: str) -> None:
    sql = await alembic(empty_database, "upgrade", "head", "--sql")
    connection = await connect(empty_database)
    await connection.execute(sql.split("BEGIN;", 1)[1].rsplit("COMMIT;", 1)[0])
    await connection.close()

    assert "No new upgrade operations detected" in await alembic(empty_database, "check")


async def test_two_migrations_at_once_do_not_meet(empty_database: str) -> None:
    await asyncio.gather(*(alembic(empty_database, "upgrade", "head") for _ in range(3)))

    assert "users" in await tables(empty_database)


async def test_an_old_schema_is_told_and_how_to_mend_it(empty_database: str) -> None:
    engine = create_async_engine(empty_database)
    with pytest.raises(Misconfigured, match=r"is empty.*worker migrate"):
        await check_schema(engine)
    await engine.dispose()


async def test_a_schema_ahead_of_the_code_is_no_reason_to_stop(database: str) -> None:
    """As when a worker starts again while an upgrade rolls."""
    connection = await connect(database)
    await connection.execute("UPDATE alembic_version SET version_num = 'of_tomorrow'")
    await connection.close()
    engine = create_async_engine(database)
    with capture_logs() as logs:
        await check_schema(engine)
    await engine.dispose()

    assert [line["at"] for line in logs] == [["of_tomorrow"]]


@asynccontextmanager
async def as_clerk(database: str, *grants: str) -> AsyncIterator[AsyncEngine]:
    """An engine that logs in as an account which has these rights alone."""
    role = f"clerk_{os.getpid()}"
    owner = await connect(database)
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    await owner.execute(";".join(f"GRANT {grant} TO {role}" for grant in grants))
    engine = create_async_engine(make_url(database).set(username=role, password="x"))
    try:
        yield engine
    finally:
        await engine.dispose()
        await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await owner.close()


async def test_a_missing_right_is_told_by_table(database: str) -> None:
    grants = ("SELECT ON ALL TABLES IN SCHEMA public", "INSERT, UPDATE, DELETE ON users, orders")
    async with as_clerk(database, *grants) as engine:
        with pytest.raises(Misconfigured, match=r"may not read and write: command_ledger.*GRANT"):
            await check_schema(engine)


async def test_a_schema_that_may_not_be_used_is_not_told_as_empty(database: str) -> None:
    owner = await connect(database)
    await owner.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    await owner.close()
    async with as_clerk(database, "ALL ON ALL TABLES IN SCHEMA public") as engine:
        with pytest.raises(Misconfigured, match=r"GRANT USAGE ON SCHEMA"):
            await check_schema(engine)


@pytest.mark.parametrize("at", ["head", "of_tomorrow"])
async def test_a_missing_table_is_not_told_as_a_missing_right(database: str, at: str) -> None:
    """As when a newer worker has removed it, or an entity of one's own has no migration yet."""
    connection = await connect(database)
    await connection.execute("DROP TABLE orders")
    if at != "head":
        await connection.execute("UPDATE alembic_version SET version_num = $1", at)
    await connection.close()
    engine = create_async_engine(database)
    with pytest.raises(Misconfigured, match="has no table orders") as caught:
        await check_schema(engine)
    await engine.dispose()

    assert "GRANT" not in str(caught.value)


async def test_a_table_whose_name_needs_quotes_is_found(database: str) -> None:
    metadata = MetaData()
    table = Table("Own Things", metadata, Column("id", Integer))
    engine = create_async_engine(database)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    table.to_metadata(Base.metadata)
    try:
        await check_schema(engine)
    finally:
        Base.metadata.remove(Base.metadata.tables["Own Things"])
        await engine.dispose()


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO users (username, email) VALUES ('ann', 'x@y.z')", "uq_users_username"),
        ("INSERT INTO users (username, email) VALUES ('bob', 'ANN@y.z')", "uq_users_email_lower"),
        ("INSERT INTO users (username, email) VALUES ('', 'b@y.z')", "ck_users_username_not_empty"),
        (
            "INSERT INTO users (username, email, rating) VALUES ('b', 'b@y.z', 'NaN')",
            "ck_users_rating_finite",
        ),
        ("UPDATE users SET version = 0", "ck_users_version_positive"),
        ("INSERT INTO orders (user_id) VALUES (99)", "fk_orders_user_id_users"),
        ("DELETE FROM users", "fk_orders_user_id_users"),
        (
            "INSERT INTO command_ledger VALUES ('x', '', 'done', gen_random_uuid(), '', '')",
            "ck_command_ledger_digest_is_sha256",
        ),
    ],
)
async def test_the_database_itself_keeps_the_rules(
    database: str, statement: str, constraint: str
) -> None:
    connection = await connect(database)
    await connection.execute(
        "INSERT INTO users (username, email) VALUES ('ann', 'ann@y.z');"
        "INSERT INTO orders (user_id) SELECT id FROM users"
    )
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as caught:
        await connection.execute(statement)
    await connection.close()

    assert caught.value.constraint_name == constraint


async def test_a_migration_waits_for_another_longer_than_for_any_lock(empty_database: str) -> None:
    holder = await connect(empty_database)
    await holder.execute("SELECT pg_advisory_lock(7310554)")
    waiting = asyncio.create_task(
        alembic(empty_database, "upgrade", "head", WORKER_DATABASE__LOCK_TIMEOUT_SECONDS="0.2")
    )

    async def queued() -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await holder.fetchval(query))

    await eventually(queued)
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done
    await holder.close()
    await waiting
    assert "users" in await tables(empty_database)
