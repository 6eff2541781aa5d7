"""Tables that look as they do after months: millions of users, and the ledger of their commands."""

from __future__ import annotations

import asyncpg

from dev.databases import dsn

AT_ONCE = 1_000_000
"""Rows in one statement, so that an interruption is heeded within seconds."""

# Bodies are as long as real ones. Half of the ids are random, half begin with the time, as UUIDs of
# version 4 and 7 do. Entries are younger than the retention, so that none is pruned meanwhile.
_LEDGER = """
INSERT INTO command_ledger
  (command_id, digest, outcome, event_id, event_type, event_body, recorded_on)
SELECT id, sha256(id::bytea), 'done', gen_random_uuid(), 'user.created',
  '{"specversion":"1.0","id":"' || gen_random_uuid() || '","source":"/worker",'
  '"type":"user.created","subject":"user/' || n || '","time":"2026-11-20T10:00:00.123456Z",'
  '"datacontenttype":"application/json","commandid":"' || id || '","correlationid":"' || id ||
  '","data":{"id":' || n || ',"username":"filled-' || n || '","email":"filled-' || n ||
  '@example.com","rating":4.5,"version":1,"created_on":"2026-11-20T10:00:00.123456Z",'
  '"updated_on":"2026-11-20T10:00:00.123456Z"}}',
  now() - interval '6 days' * (1 - n::float8 / $3)
FROM (
  SELECT n, CASE WHEN n % 2 = 0 THEN md5(n::text)
    ELSE lpad(to_hex(1763600000000 + n * 50), 12, '0') || substr(md5(n::text), 1, 20) END AS id
  FROM generate_series($1::bigint, $2::bigint) AS n
) AS ids
"""
_USERS = """
INSERT INTO users (username, email, rating)
SELECT 'filled-' || md5(n::text), 'filled-' || md5(n::text) || '@example.com', n % 50 / 10.0
FROM generate_series($1::bigint, $2::bigint) AS n
"""
_INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) AS definition, i.indexrelid::regclass::text AS name,
  c.conname AS "constraint", pg_get_constraintdef(c.oid) AS "constraint_definition"
FROM pg_index AS i
LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')
WHERE i.indrelid = $1::regclass
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND conindid = i.indexrelid)
"""


async def add_rows(database_url: str, count: int) -> None:
    """Put so many rows into `users` and `command_ledger`, and let the planner know of them."""
    connection = await asyncpg.connect(dsn(database_url))
    try:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        for table, statement, *more in (("command_ledger", _LEDGER, count), ("users", _USERS)):
            # Indexes are built in one go: row by row it takes several times as long.
            indexes = await connection.fetch(_INDEXES, table)
            for index in indexes:
                await connection.execute(_drop(table, index))
            for first in range(1, count + 1, AT_ONCE):
                last = min(count, first + AT_ONCE - 1)
                await connection.execute(statement, first, last, *more)
            for index in indexes:
                await connection.execute(_make(table, index))
            await connection.execute(f"VACUUM ANALYZE {table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _drop(table: str, index: asyncpg.Record) -> str:
    if index["constraint"]:
        return f"ALTER TABLE {table} DROP CONSTRAINT {index['constraint']}"
    return f"DROP INDEX {index['name']}"


def _make(table: str, index: asyncpg.Record) -> str:
    if index["constraint"]:
        definition = index["constraint_definition"]
        return f"ALTER TABLE {table} ADD CONSTRAINT {index['constraint']} {definition}"
    return str(index["definition"])
