"""`worker ledger`: what became of a command, its event again, old entries away."""

from __future__ import annotations

import asyncio
import json

from tests.support.commandline import CommandLine
from tests.support.harness import Harness


async def test_it_tells_what_became_of_a_command(cli: CommandLine, harness: Harness) -> None:
    async with harness.worker():
        done = await harness.ask(
            "user.create", id="done", data={"username": "ann", "email": "ann@example.com"}
        )
        await harness.ask("user.create", id="dead", data={})
    shown, dead, unknown = await asyncio.gather(
        cli("ledger", "show", "done", "--json"),
        cli("ledger", "show", "dead"),
        cli("ledger", "show", "nobody\x1b[31m", code=1),
    )
    assert shown.line["outcome"] == "done"
    assert shown.line["event"] == done.json
    assert shown.line["recorded_on"].endswith("Z")
    assert dead.line["outcome"] == "dead_lettered"
    assert "no command with id 'nobody\\x1b[31m' is in the ledger" in unknown.err
    assert "7 days" in unknown.err


async def test_events_are_published_again_as_they_were(cli: CommandLine, harness: Harness) -> None:
    async with harness.worker():
        ids = [
            await harness.send(
                "user.create", key="same", data={"username": f"u{n}", "email": f"u{n}@example.com"}
            )
            for n in range(20)
        ]
        before = [await harness.event(id_) for id_ in ids]
    rehearsed = await cli("ledger", "republish", "--since", "1h", "--dry-run")
    assert rehearsed.err == "20 events would be published\n"
    assert len(harness.events) == 20

    some, everything = (
        await cli("ledger", "republish", ids[7], "nobody", code=1),
        await cli("ledger", "republish", "--since", "1h", "--rate", "10000"),
    )
    assert [line["id"] for line in some.lines] == [ids[7]]
    assert "nobody" in some.err
    assert [line["id"] for line in everything.lines] == ids
    again = [await harness.event(id_, number=3 if id_ == ids[7] else 2) for id_ in ids]
    assert [event.body for event in again] == [event.body for event in before]
    assert [event.body for event in harness.events[-20:]] == [event.body for event in before]
    first = again[0]
    assert first.headers["x-replayed"] is True
    assert first.headers["commandid"] == ids[0]
    assert first.routing_key == first.properties.type == "user.created"
    assert first.properties.correlation_id == ids[0]
    assert first.properties.content_type == "application/cloudevents+json"
    assert first.properties.delivery_mode == 2


async def test_old_entries_are_forgotten(cli: CommandLine, harness: Harness) -> None:
    await harness.pool.execute(
        "INSERT INTO command_ledger"
        " SELECT 'id-' || n, sha256('x'), 'done', gen_random_uuid(), 'x', '{}',"
        " now() - n * interval '1 hour' FROM generate_series(1, 2500) AS n"
    )
    rehearsed = await cli("ledger", "prune", "--dry-run")
    assert rehearsed.line == {"would_forget": 2500 - 7 * 24 + 1}
    assert await _count(harness) == 2500
    by_age = await cli("ledger", "prune", "--older-than", "100d")
    assert by_age.line == {"forgotten": 101}
    by_retention = await cli("ledger", "prune")
    assert by_retention.line == {"forgotten": 2500 - 7 * 24 + 1 - 101}
    assert await _count(harness) == 7 * 24 - 1
    assert json.loads(by_retention.out)["forgotten"] > 1_000


async def _count(harness: Harness) -> int:
    ((count,),) = [
        row.values() for row in await harness.rows("SELECT count(*) FROM command_ledger")
    ]
    return int(count)
