"""What the database has to say about a worker that is to run, or runs: read, and nothing changed.

A check is one query: no row is no finding, and each row fills the words of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.core.errors import Misconfigured, Unreachable
from worker.core.findings import Finding
from worker.core.models import Base
from worker.database.capacity import find_room
from worker.database.errors import first_line
from worker.database.migrations import check_schema

MAX_SKEW_SECONDS = 2.0
"""Between two clocks; a second of it may be the way there and back."""


@dataclass(frozen=True)
class DatabaseCheck:
    """`what` and `fix` name columns of the query in braces; `:tables` are the entities' tables."""

    code: str
    query: str
    what: str
    why: str
    fix: str
    level: Literal["problem", "note"] = "problem"


_TABLES = text(
    "SELECT to_regclass(name)::oid FROM unnest(CAST(:names AS text[])) AS name"
    " WHERE to_regclass(name) IS NOT NULL"
)

CHECKS = (
    DatabaseCheck(
        "server_version",
        "SELECT current_setting('server_version') AS version"
        " WHERE current_setting('server_version_num')::int < 150000",
        "PostgreSQL {version} is older than 15",
        "no guarantee was tried with it",
        "upgrade PostgreSQL to 15 or newer (pg_upgrade)",
    ),
    DatabaseCheck(
        "durability",
        "SELECT name FROM pg_settings"
        " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'",
        "{name} is off",
        "G1, G2: after a crash of the server, commands are gone that were acknowledged",
        "ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()",
    ),
    DatabaseCheck(
        "encoding",
        "SELECT current_setting('server_encoding') AS encoding"
        " WHERE current_setting('server_encoding') <> 'UTF8'",
        "the database's encoding is {encoding}, not UTF8",
        "text that it cannot store fails command after command",
        "make a database with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move there",
    ),
    DatabaseCheck(
        "isolation",
        "SELECT current_setting('default_transaction_isolation') AS level, current_user AS account"
        " WHERE current_setting('default_transaction_isolation') <> 'read committed'",
        "transactions of {account} begin as {level}",
        "commands that touch the same rows at once fail with 40001, and are tried again and again",
        "ALTER ROLE {account} SET default_transaction_isolation = 'read committed'",
        "note",
    ),
    DatabaseCheck(
        "collation",
        "SELECT datname AS name FROM pg_database WHERE datname = current_database()"
        " AND datcollversion <> pg_database_collation_actual_version(oid)",
        "the collation of database {name} has another version than its indexes were made with",
        "an index may miss rows that are there: unique values come twice, targets are not found",
        'REINDEX DATABASE "{name}"; ALTER DATABASE "{name}" REFRESH COLLATION VERSION',
    ),
    DatabaseCheck(
        "long_transaction",
        "SELECT pid, state, round(extract(epoch FROM now() - xact_start)) AS seconds"
        " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend' AND xact_start < now() - interval '5 minutes'",
        "a transaction of session {pid} ({state}) is {seconds} s old",
        "G8: what was deleted since cannot be freed, and tables grow; its locks hold up commands",
        "SELECT pg_terminate_backend({pid})",
    ),
    DatabaseCheck(
        "lock_wait",
        "SELECT pid, pg_blocking_pids(pid) AS by,"
        " round(extract(epoch FROM now() - query_start)) AS seconds FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query_start < now() - interval '5 seconds'",
        "session {pid} has waited {seconds} s for a lock that {by} hold",
        "commands for the same rows wait, too",
        "SELECT pg_terminate_backend(pid), where pid is one of {by}",
    ),
    DatabaseCheck(
        "dead_rows",
        "SELECT relid::regclass::text AS name, n_dead_tup AS dead, n_live_tup AS live"
        " FROM pg_stat_user_tables WHERE relid = ANY (CAST(:tables AS oid[]))"
        " AND n_dead_tup > 100000 AND n_dead_tup > n_live_tup",
        "table {name} has {dead} dead rows and {live} live ones",
        "G8: it grows, and each look takes longer",
        "VACUUM (ANALYZE) {name}",
        "note",
    ),
    DatabaseCheck(
        "sequence",
        "SELECT format('%I.%I', schemaname, sequencename) AS name,"
        " last_value / (max_value / 100) AS used FROM pg_sequences"
        " WHERE EXISTS (SELECT FROM pg_depend WHERE refobjid = ANY (CAST(:tables AS oid[]))"
        " AND objid = format('%I.%I', schemaname, sequencename)::regclass)"
        " AND increment_by > 0 AND last_value > max_value / 5 * 4",
        "{used} % of sequence {name} are used",
        "when it ends, each create fails",
        "ALTER SEQUENCE {name} AS bigint, and ALTER TABLE … ALTER COLUMN … TYPE bigint",
    ),
    DatabaseCheck(
        "write_hook",
        "SELECT tgrelid::regclass::text AS name, tgname AS hook FROM pg_trigger"
        " WHERE tgrelid = ANY (CAST(:tables AS oid[])) AND NOT tgisinternal"
        " UNION ALL SELECT oid::regclass::text, 'row-level security' FROM pg_class"
        " WHERE oid = ANY (CAST(:tables AS oid[])) AND relrowsecurity"
        " UNION ALL SELECT ev_class::regclass::text, rulename FROM pg_rewrite"
        " WHERE ev_class = ANY (CAST(:tables AS oid[])) AND rulename <> '_RETURN'",
        "table {name} has {hook!r}, which can change or suppress what is written",
        "a command whose write touches no row fails",
        "\\d {name} in psql shows it; DROP it, unless it is meant",
        "note",
    ),
    DatabaseCheck(
        "reference_without_index",
        "SELECT conrelid::regclass::text AS name, attname AS column FROM pg_constraint"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]"
        " WHERE conrelid = ANY (CAST(:tables AS oid[])) AND contype = 'f'"
        " AND NOT EXISTS (SELECT FROM pg_index"
        " WHERE indrelid = conrelid AND indkey[0] = conkey[1] AND indisvalid)",
        "the reference {name}.{column} has no index",
        "each delete of what it refers to reads the whole table",
        'CREATE INDEX CONCURRENTLY ON {name} ("{column}"), and the same in a migration',
        "note",
    ),
)


async def examine_database(
    engine: AsyncEngine, migrations: tuple[Path, ...], *, processes: int
) -> AsyncIterator[Finding]:
    """Everything that the account may see; so many processes are to share the server."""
    try:
        await check_schema(engine, migrations)
    except (Misconfigured, Unreachable) as fault:
        if isinstance(fault, Unreachable):
            yield Finding.of("database", fault, "no command is carried out")
            return
        yield Finding.of("schema", fault, "a worker does not start so")
    tables = await _tables(engine)
    for check in CHECKS:
        async for finding in run(engine, check, tables):
            yield finding
    room = await find_room(engine, processes=processes)
    if not room.fits:
        told = Misconfigured(room.sentence)
        yield Finding.of("connections", told, "under load, connections are refused")
    async for finding in _skew(engine):
        yield finding


async def _tables(engine: AsyncEngine) -> list[int]:
    quote = engine.dialect.identifier_preparer.format_table
    names = {"names": [quote(table) for table in Base.metadata.sorted_tables]}
    async with engine.connect() as connection:
        return list((await connection.scalars(_TABLES, names)).all())


async def run(
    engine: AsyncEngine, check: DatabaseCheck, tables: Sequence[int]
) -> AsyncIterator[Finding]:
    """One check; `tables` are the identities of the entities' tables."""
    values = {"tables": tables} if ":tables" in check.query else {}
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(text(check.query), values)).mappings().all()
    except SQLAlchemyError as error:
        what = f"could not be looked at: {first_line(error)}"
        yield Finding(check.code, what, check.why, "ask its owner", "note")
        return
    for row in rows:
        what, fix = check.what.format(**row), check.fix.format(**row)
        yield Finding(check.code, what, check.why, fix, check.level)


async def _skew(engine: AsyncEngine) -> AsyncIterator[Finding]:
    async with engine.connect() as connection:
        before = datetime.now(UTC)
        there = await connection.scalar(text("SELECT clock_timestamp()"))
    assert isinstance(there, datetime)
    skew = (there - before).total_seconds()
    if abs(skew) > MAX_SKEW_SECONDS:
        yield Finding(
            "clock",
            f"the database's clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}",
            "times in events and in the ledger come from both clocks",
            "timedatectl set-ntp true, on both machines",
            "note",
        )
