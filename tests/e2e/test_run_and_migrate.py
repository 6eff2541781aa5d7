"""`worker run` and `worker migrate` as processes."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

from alembic.script import ScriptDirectory

from tests.support.commandline import CommandLine
from tests.support.harness import Harness
from worker.database.migrations import alembic_config

MIGRATIONS = Path(__file__).parents[2] / "alembic"
READY = '"part": "commands", "event": "ready"'


async def test_a_worker_runs_until_it_is_stopped(cli: CommandLine, harness: Harness) -> None:
    async with cli.running("run") as worker:
        await worker.said(READY)
        await harness.subscribe()
        event = await harness.ask("user.create", data={"username": "ann", "email": "a@x.org"})
        assert event.routing_key == "user.created"
        result = await worker.end(by=signal.SIGTERM)
    assert result.code == 0
    assert '"event": "stopped"' in result.err
    assert "Pool disposed" not in result.err  # what SQLAlchemy tells of its inside
    assert result.out == ""


async def test_ctrl_c_stops_a_worker_in_order_and_a_second_one_at_once(
    cli: CommandLine, harness: Harness
) -> None:
    async with cli.running("run", WORKER_ENTITIES="tests.support.slow_entities") as worker:
        await worker.said(READY)
        await harness.send("slow.sleep", target={"id": 1}, data={"seconds": 60})
        await worker.said("asleep")
        worker.process.send_signal(signal.SIGINT)
        await worker.said('"event": "stopping"')
        result = await worker.end(by=signal.SIGINT)
    assert result.code == 130
    assert "Traceback" not in result.err


async def test_a_schema_that_is_behind_is_told(cli: CommandLine, empty_database: str) -> None:
    result = await cli("run", code=2, WORKER_DATABASE__URL=empty_database)
    assert "error: The database schema is empty" in result.err
    assert "worker migrate" in result.err


async def test_migrating_says_from_where_to_where(cli: CommandLine, empty_database: str) -> None:
    cli.environment["WORKER_DATABASE__URL"] = empty_database
    unread = await cli("ledger", "show", "x", code=2)
    assert "worker migrate" in unread.err

    both = await asyncio.gather(cli("migrate"), cli("migrate"))
    first, *_ = sorted((result.err for result in both), reverse=True)
    assert first.startswith("the schema was brought from nothing to 0")

    again, sql = await asyncio.gather(
        cli("migrate"),
        cli("migrate", "--sql", WORKER_DATABASE__URL="postgresql+asyncpg://127.0.0.1:1/none"),
    )
    assert again.err.startswith("the schema is at 0")
    assert again.out == ""
    assert "CREATE TABLE users" in sql.out
    assert sql.err == ""


async def test_a_schema_that_is_ahead_is_told(cli: CommandLine, harness: Harness) -> None:
    await harness.pool.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    result = await cli("migrate", code=2)
    assert "from-the-future" in result.err
    assert "newer worker" in result.err


async def test_migrations_of_ones_own_are_those_that_are_applied(
    cli: CommandLine, harness: Harness, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    newest = ScriptDirectory.from_config(alembic_config(folder)).get_current_head()
    (folder / "versions" / "own.py").write_text(
        f'revision, down_revision = "own", "{newest}"\n\ndef upgrade():\n    pass\n'
    )
    cli.environment["WORKER_MIGRATIONS"] = str(folder)
    behind = await cli("run", code=2)
    assert "worker migrate" in behind.err
    result = await cli("migrate")
    assert "to own" in result.err
    async with cli.running("run") as worker:
        await worker.said(READY)
