"""G1 to G4 while the worker is killed again and again."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from zlib import crc32

import pika
import pytest

from dev.worker_processes import WorkerProcess
from tests.support.harness import Harness, eventually

COMMANDS = 10_000
USERS = 200
KILLS = 5
PUBLISHERS = 4


def mixed_commands(seed: int) -> list[dict[str, Any]]:
    """Commands about a few hundred users, each user's under one key, in a random weave."""
    chosen = random.Random(seed)
    commands: list[dict[str, Any]] = []
    rating: Counter[int] = Counter()
    for number in range(COMMANDS):
        user = chosen.randrange(USERS)
        name = f"user-{user}"
        target = {"username": name}
        key = {"id": f"c{number}", "key": name}
        if user not in rating:
            rating[user] = 0
            data: dict[str, Any] = {"username": name, "email": f"{name}@example.com"}
            commands.append(key | {"type": "user.create", "data": data})
            continue
        match chosen.randrange(10):
            case 0 | 1 | 2 | 3:
                rating[user] += 1
                data = {"rating": rating[user]}
                commands.append(key | {"type": "user.update", "target": target, "data": data})
            case 4 | 5:
                commands.append(key | {"type": "order.create", "data": {"user": target}})
            case 6:  # taken: refused
                data = {"username": name, "email": f"{name}.{number}@example.com"}
                commands.append(key | {"type": "user.create", "data": data})
            case 7:  # invalid: dead-lettered
                commands.append(key | {"type": "user.update", "target": target, "data": {"x": 1}})
            case 8:  # no such row: refused
                commands.append(key | {"type": "order.delete", "target": {"id": 10**12}})
            case 9:  # one of the last ones again: a duplicate
                commands.append(commands[-chosen.randrange(1, min(50, len(commands)) + 1)])
    return commands


def publish_with_pika(url: str, exchange: str, commands: list[dict[str, Any]]) -> None:
    """A client that is not ours; returns when the broker has confirmed every command."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
    for command in commands:
        body = json.dumps(command).encode()
        channel.basic_publish(exchange, "any", body, properties, mandatory=True)
    connection.close()


async def publish_by_key(url: str, exchange: str, commands: list[dict[str, Any]]) -> None:
    """By several of them at once, since each waits for every confirm; each key by one."""
    shares: list[list[dict[str, Any]]] = [[] for _ in range(PUBLISHERS)]
    for command in commands:
        shares[crc32(command["key"].encode()) % PUBLISHERS].append(command)
    await asyncio.gather(
        *(asyncio.to_thread(publish_with_pika, url, exchange, share) for share in shares)
    )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_ten_thousand_commands_survive_five_kills(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    commands = mixed_commands(seed=7)
    ids = {command["id"] for command in commands}
    worker = WorkerProcess(environment, tmp_path / "worker.log")
    await worker.start()
    try:
        await harness.subscribe()
        url = harness.settings.broker.url.get_secret_value()
        exchange = f"{harness.settings.namespace}.commands"
        publishing = asyncio.create_task(publish_by_key(url, exchange, commands))
        for kill in range(1, KILLS + 1):
            enough = len(commands) * kill // (KILLS + 2)
            await eventually(lambda: len(harness.events) >= enough, within=60)  # noqa: B023
            await worker.kill()
            await worker.start(ready=False)
        await publishing
        await eventually(lambda: ids == {e.command_id for e in harness.events}, within=60)
        await eventually(lambda: _is_zero(harness), within=30)
        assert await worker.stop() == 0
    finally:
        await worker.end()

    await check_events(harness, commands)
    await check_rows(harness, commands)


async def _is_zero(harness: Harness) -> bool:
    return await harness.waiting() == 0


async def check_events(harness: Harness, commands: list[dict[str, Any]]) -> None:
    """Each id has one answer, however often it came; per key the answers came in order."""
    answers: dict[str, set[bytes]] = defaultdict(set)
    first_seen: dict[str, int] = {}
    for position, event in enumerate(harness.events):
        assert event.command_id is not None
        answers[event.command_id].add(event.body)
        first_seen.setdefault(event.command_id, position)
    assert {len(bodies) for bodies in answers.values()} == {1}

    ends = {id_: json.loads(next(iter(bodies))) for id_, bodies in answers.items()}
    letters = await harness.dead_letters_so_far()
    assert {letter.json["id"] for letter in letters} == {
        id_ for id_, end in ends.items() if end["data"].get("code") == "invalid"
    }
    sent_by_key: dict[str, list[str]] = defaultdict(list)
    for command in commands:
        if command["id"] not in sent_by_key[command["key"]]:
            sent_by_key[command["key"]].append(command["id"])
    for sent in sent_by_key.values():
        positions = [first_seen[id_] for id_ in sent]
        assert positions == sorted(positions)


async def check_rows(harness: Harness, commands: list[dict[str, Any]]) -> None:
    """Every command that was answered with success took effect once, every other one never."""
    done = Counter[str]()
    for event in {event.body: event for event in harness.events}.values():
        done[event.routing_key] += 1
    rows = await harness.rows("SELECT * FROM users")
    assert done["user.created"] == len(rows) == USERS
    assert sum(row["version"] - 1 for row in rows) == done["user.updated"]
    # Ratings were sent as 1, 2, 3 … per user: the last one wins only if order was kept.
    assert all((row["rating"] or 0) == row["version"] - 1 for row in rows)
    (orders,) = await harness.rows("SELECT count(*) FROM orders")
    assert orders["count"] == done["order.created"]
    (ledger,) = await harness.rows("SELECT count(*) FROM command_ledger")
    assert ledger["count"] == len({command["id"] for command in commands})
