"""Retention under load: old rows are forgotten, and no command waits for that."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from aiormq.exceptions import ChannelPreconditionFailed
from sqlalchemy import text

from tests.support.harness import Harness, eventually
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.core.messages import ResultEvent, new_id
from worker.database import ledger
from worker.database.engine import Sessions, make_engine, make_sessions
from worker.database.ledger import DONE, Entry
from worker.database.ledger_retention import BATCH, BEGINNING, PRUNE, forget, keep_pruned, prune

WEEK = timedelta(days=7)
ROWS = int(os.environ.get("RETENTION_ROWS", "200000"))
"""RETENTION_ROWS=1000000 takes half a minute, most of which is filling."""

_FILL = """
INSERT INTO command_ledger
SELECT md5(n::text || $3), sha256(''), 'done', gen_random_uuid(), 'user.created', repeat('x', 200),
  now() - interval '30 days' + n * interval '1 second'
FROM generate_series($1::int, $2::int) AS n
"""
_SIZES = """
SELECT pg_table_size('command_ledger') AS "table", pg_indexes_size('command_ledger') AS indexes
"""
ANN = {"username": "ann", "email": "ann@example.com"}


@pytest.fixture
async def sessions(harness: Harness) -> AsyncIterator[Sessions]:
    engine = make_engine(harness.settings.database)
    yield make_sessions(engine)
    await engine.dispose()


async def fill(harness: Harness, rows: int, *, salt: str = "") -> None:
    """Put rows into the ledger that are older than its retention."""
    await harness.rows(_FILL, 1, rows, salt)


async def fill_many(harness: Harness) -> None:
    """The same for many rows: without their indexes, which are made at the end."""
    await harness.rows("ALTER TABLE command_ledger DROP CONSTRAINT pk_command_ledger")
    await harness.rows("DROP INDEX ix_command_ledger_recorded_on")
    await fill(harness, ROWS)
    await harness.rows(
        "ALTER TABLE command_ledger ADD CONSTRAINT pk_command_ledger PRIMARY KEY (command_id)"
    )
    await harness.rows("CREATE INDEX ix_command_ledger_recorded_on ON command_ledger (recorded_on)")


@pytest.mark.long
async def test_many_rows_are_forgotten_by_three_at_once_under_load(
    harness: Harness, sessions: Sessions
) -> None:
    await fill_many(harness)
    async with harness.worker():
        fresh = [await harness.send("user.create", data=_user(number)) for number in range(50)]
        pruners = [
            asyncio.create_task(keep_pruned(sessions, WEEK, pause_seconds=0)) for _ in range(2)
        ]
        blocked: list[str] = []

        async def all_gone() -> bool:
            blocked.extend(await _blocked(harness))
            fresh.append(await harness.send("user.create", data=_user(len(fresh))))
            (row,) = await harness.rows(
                "SELECT count(*) FROM command_ledger WHERE recorded_on < now() - interval '7 days'"
            )
            return int(row["count"]) == 0

        await eventually(all_gone, within=60)
        for id_ in fresh:
            assert (await harness.event(id_)).routing_key == "user.created"
        for task in pruners:
            task.cancel()
        await asyncio.gather(*pruners, return_exceptions=True)

    assert blocked == []
    (row,) = await harness.rows("SELECT count(*) FROM command_ledger")
    assert row["count"] == len(fresh)


async def _another_batch(sessions: Sessions) -> int:
    """In a task of its own: one task holds one connection."""
    async with sessions.begin() as session:
        return (await prune(session, WEEK)).count


async def _blocked(harness: Harness) -> list[str]:
    """Statements in this database that wait for another session."""
    rows = await harness.rows(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
        " AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    return [str(row["query"]) for row in rows]


def _user(number: int) -> dict[str, str]:
    return {"username": f"user {number}", "email": f"user-{number}@example.com"}


async def test_no_command_waits_for_a_batch_that_never_ends(
    harness: Harness, sessions: Sessions
) -> None:
    await fill(harness, 2 * BATCH)
    async with harness.worker(ledger_retention_days=3_650):  # it leaves them to us
        known = await harness.ask("user.create", data=ANN)
        assert known.command_id is not None
        async with sessions.begin() as held:
            assert (await prune(held, WEEK)).count == BATCH
            # Every kind of command, a duplicate too, while the rows of the batch are locked.
            update = {"target": {"username": "ann"}, "data": {"rating": 1}}
            assert (await harness.ask("user.update", **update)).routing_key == "user.updated"
            await harness.send("user.create", data=ANN, id=known.command_id)
            assert (await harness.event(known.command_id, number=2)).body == known.body
            refused = await harness.ask("user.create", data=ANN)
            assert refused.data["code"] == "conflict"
            gone = await harness.ask("user.delete", target={"username": "ann"})
            assert gone.routing_key == "user.deleted"
            # And another pruner goes on with other rows.
            assert await asyncio.create_task(_another_batch(sessions)) == BATCH
            assert await _blocked(harness) == []


async def test_a_batch_waits_for_no_row_that_a_command_holds(
    harness: Harness, sessions: Sessions
) -> None:
    await fill(harness, 3)
    (held,) = await harness.rows(
        "UPDATE command_ledger SET outcome = 'dead_lettered'"
        " WHERE recorded_on = (SELECT min(recorded_on) FROM command_ledger) RETURNING command_id"
    )
    id_ = str(held["command_id"])
    async with sessions.begin() as session:
        # A dead letter that was sent back: its row is written anew.
        answer = ResultEvent(new_id(), "user.created", b"{}")
        await ledger.record(session, [Entry(id_, bytes(32), DONE, answer)], again=[id_])
        # Were it to wait, the server would end it by its lock_timeout.
        assert await asyncio.create_task(_another_batch(sessions)) == 2
    assert await _another_batch(sessions) == 0  # it is new again
    assert await harness.rows("SELECT command_id, outcome FROM command_ledger") == [
        {"command_id": id_, "outcome": DONE}
    ]


async def test_a_batch_looks_at_as_little_after_many_others_as_the_first(
    harness: Harness, sessions: Sessions
) -> None:
    await harness.rows("ALTER TABLE command_ledger SET (autovacuum_enabled = false)")
    await fill(harness, 60 * BATCH)
    first = await _pages(sessions, BEGINNING)
    async with sessions.begin() as session:
        pruned = await prune(session, WEEK, batch=50 * BATCH)
    later = await _pages(sessions, pruned.until)
    from_the_start = await _pages(sessions, BEGINNING)

    assert later < 2 * first
    # Why each batch begins where the last one ended; the next vacuum ends it.
    assert from_the_start > later + 100


async def _pages(sessions: Sessions, since: datetime) -> int:
    """Prune one batch; return how many pages that has looked at."""
    statement = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {PRUNE.text}")
    async with sessions.begin() as session:
        values = {"age": WEEK, "since": since, "batch": BATCH}
        plan = await session.scalar(statement, values)
    assert plan is not None
    root = plan[0]["Plan"]
    assert "Seq Scan" not in json.dumps(plan)
    return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])


async def test_the_ledger_stays_as_large_as_its_window(
    harness: Harness, sessions: Sessions
) -> None:
    sizes = []
    for cycle in range(5):
        await fill(harness, 20_000, salt=str(cycle))
        sizes.append(sum((await harness.rows(_SIZES))[0].values()))
        counts = [count async for count in forget(sessions, WEEK, pause_seconds=0)]
        assert max(counts) == BATCH
        assert sum(counts) == 20_000
        await harness.rows("VACUUM command_ledger")  # what autovacuum does within a minute

    # A vacuum that an older snapshot holds back leaves a part of a window; space that is never used
    # again would make each cycle larger by half.
    assert max(sizes[2:]) <= 1.4 * sizes[1]


async def test_autovacuum_comes_while_little_of_the_ledger_is_dead(harness: Harness) -> None:
    (row,) = await harness.rows(
        "SELECT reloptions FROM pg_class WHERE oid = 'command_ledger'::regclass"
    )

    assert "autovacuum_vacuum_scale_factor=0.02" in row["reloptions"]
    assert "autovacuum_vacuum_insert_scale_factor=0.05" in row["reloptions"]


async def test_a_duplicate_that_comes_after_the_window_is_a_new_command(
    harness: Harness, sessions: Sessions
) -> None:
    update = {"target": {"username": "ann"}, "data": {"rating": 1}}
    async with harness.worker(ledger_retention_days=3_650):  # it leaves that to us
        created = await harness.ask("user.create", data=ANN)
        updated = await harness.ask("user.update", **update)
        await harness.rows("UPDATE command_ledger SET recorded_on = now() - interval '8 days'")
        assert sum([count async for count in forget(sessions, WEEK)]) == 2
        await harness.send("user.create", data=ANN, id=created.command_id)
        await harness.send("user.update", id=updated.command_id, **update)
        assert created.command_id is not None
        assert updated.command_id is not None
        create_again = await harness.event(created.command_id, number=2)
        update_again = await harness.event(updated.command_id, number=2)

    # A name that is taken keeps the create from taking effect twice; nothing keeps the update.
    assert create_again.data["code"] == "conflict"
    assert update_again.data["version"] == updated.data["version"] + 1
    assert "x-replayed" not in update_again.headers
    assert update_again.json["id"] != updated.json["id"]


async def test_the_broker_has_every_bound_as_it_is_declared(harness: Harness) -> None:
    """Each differs from what is there in one argument, which RabbitMQ must then name."""
    settings = harness.settings
    topology = Topology(settings.namespace, settings.broker)
    await topology.ensure(harness.connection)
    told = 0
    for queue, arguments in topology.queues.items():
        for name in _BOUNDS & arguments.keys():
            other = {"x-max-age": "1s"}.get(name, 1_000_001)
            async with connect(settings.broker, "test") as connection:
                channel = await connection.channel()
                with pytest.raises(ChannelPreconditionFailed, match=f"'{name}'"):
                    await channel.declare_queue(
                        queue, durable=True, arguments={**arguments, name: other}
                    )
            told += 1

    assert told == 6


_BOUNDS = {
    "x-max-age",
    "x-max-length-bytes",
    "x-message-ttl",
    "x-stream-max-segment-size-bytes",
}


async def test_a_dead_letter_goes_when_its_time_is_over(harness: Harness) -> None:
    broker = harness.settings.broker.model_dump() | {"dead_letters_retention_days": 3 / 86_400}
    async with harness.worker(broker=broker):
        await harness.ask("user.paint")
        assert await harness.waiting("dead-letters") == 1

        async def gone() -> bool:
            return await harness.waiting("dead-letters") == 0

        await eventually(gone)
