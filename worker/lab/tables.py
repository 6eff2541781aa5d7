"""The tables that the steps of a scenario work on."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.lab.steps import HOT, ITEMS

_TABLES = (
    'CREATE SCHEMA "{0}"',
    'CREATE TABLE "{0}".items (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 50)',
    'INSERT INTO "{0}".items SELECT id, 0 FROM generate_series(1, {1}) AS id',
    'CREATE TABLE "{0}".hot (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 10)',
    'INSERT INTO "{0}".hot SELECT id, 0 FROM generate_series(1, {2}) AS id',
    'ANALYZE "{0}".items',
    'ANALYZE "{0}".hot',
    'CREATE TABLE "{0}".slow_commits (seconds double precision NOT NULL)',
    'CREATE FUNCTION "{0}".sleep_in_commit() RETURNS trigger LANGUAGE plpgsql AS'
    " $$ BEGIN PERFORM pg_sleep(NEW.seconds); RETURN NULL; END $$",
    'CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON "{0}".slow_commits'
    " DEFERRABLE INITIALLY DEFERRED"
    ' FOR EACH ROW EXECUTE FUNCTION "{0}".sleep_in_commit()',
)


async def create_tables(connection: AsyncConnection, schema: str) -> None:
    """Make the schema, and in it what `transaction.py` needs."""
    for statement in _TABLES:
        await connection.execute(text(statement.format(schema, ITEMS, HOT)))
