"""Queries end to end: asked by message, answered to the asker alone, never in a command's way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from dev.databases import dsn, migrate
from tests.support.asking import Asker, asking
from tests.support.harness import Harness, creates, eventually


@pytest.fixture
async def asker(harness: Harness) -> AsyncIterator[Asker]:
    async with asking(harness) as it:
        yield it


async def some_users(harness: Harness) -> None:
    """Three users: ann with two orders and a rating, Bob with one order, cy with nothing."""
    await harness.pool.execute(
        "INSERT INTO users (username, email, rating) VALUES"
        " ('ann', 'ann@example.com', 4.5), ('Bob', 'BOB@example.com', 2), ('cy', 'cy@b.de', NULL)"
    )
    await harness.pool.execute(
        "INSERT INTO orders (user_id, is_completed) SELECT id, completed FROM users,"
        " (VALUES ('ann', true), ('ann', false), ('Bob', true)) AS o (name, completed)"
        " WHERE username = name ORDER BY name, completed DESC"
    )


def names(answer: dict[str, Any]) -> list[str]:
    return [item["username"] for item in answer["items"]]


async def test_rows_are_filtered_ordered_and_shown_as_events_show_them(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker():
        created = await harness.ask(
            "user.create", data={"username": "ann", "email": "ann@b.de", "rating": 4.5}
        )
        answer = await asker("user.list", {"where": {"rating": {"gte": 4}}})
        assert answer == {"items": [created.data], "next": None}
        one = await asker("user.get", target={"email": "ANN@b.de"})
        assert one == created.data
        assert await asker("user.list", {"where": {"rating": {"lt": 4}}}) == {
            "items": [],
            "next": None,
        }


async def test_an_answer_goes_to_its_asker_alone_and_nothing_is_kept(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker():
        await some_users(harness)
        for _ in range(2):
            event = await asker.event("user.list", {"fields": ["username"]})
            assert event["specversion"] == "1.0"
            assert event["type"] == "user.list.result"
            assert event["commandid"] == event["correlationid"]
        await asker.problem("user.get", target={"id": 999})
        await asker.problem("user.list", {"where": {"nope": 1}})
        await harness.ask("user.create", data={"username": "z", "email": "z@b.de"})
        assert [event.json["type"] for event in harness.events] == ["user.created"]
        kept = await harness.rows("SELECT count(*) FROM command_ledger")
        assert kept[0]["count"] == 1
        assert await harness.waiting("dead-letters") == 0


async def test_a_query_without_reply_to_is_refused_with_an_event(harness: Harness) -> None:
    async with harness.worker():
        event = await harness.ask("user.list", data={})
        assert event.json["type"] == "user.list.rejected"
        assert event.data["errors"][0]["pointer"] == "/reply_to"
        assert len(await harness.dead_letters(1)) == 1


async def test_includes_groups_and_relations(harness: Harness, asker: Asker) -> None:
    async with harness.worker():
        await some_users(harness)
        some = await asker("user.list", {"where": {"orders": {"some": {"is_completed": False}}}})
        assert names(some) == ["ann"]
        every = await asker("user.list", {"where": {"orders": {"every": {"is_completed": True}}}})
        assert names(every) == ["Bob", "cy"]
        none = await asker("user.list", {"where": {"orders": {"none": {}}}})
        assert names(none) == ["cy"]
        theirs = await asker("order.list", {"where": {"user": {"email": "bob@EXAMPLE.com"}}})
        assert len(theirs["items"]) == 1
        shown = await asker(
            "user.list", {"fields": ["username"], "include": ["orders"], "order_by": ["-email"]}
        )
        assert [(it["username"], len(it["orders"])) for it in shown["items"]] == [
            ("cy", 0),
            ("Bob", 1),
            ("ann", 2),
        ]
        assert shown["items"][1].keys() == {"username", "orders"}
        owner = await asker(
            "order.list", {"include": ["user"], "where": {"is_completed": False}, "limit": 1}
        )
        assert owner["items"][0]["user"]["username"] == "ann"
        groups = await asker(
            "order.list", {"aggregate": {"count": True}, "group_by": ["is_completed"]}
        )
        assert groups["groups"] == [
            {"group": {"is_completed": False}, "count": 1},
            {"group": {"is_completed": True}, "count": 2},
        ]
        total = await asker(
            "user.list", {"aggregate": {"count": True, "avg": ["rating"], "sum": ["id"]}}
        )
        assert total["aggregate"]["count"] == 3
        assert total["aggregate"]["avg"] == {"rating": 3.25}
        assert isinstance(total["aggregate"]["sum"]["id"], int)


async def test_slow_queries_hold_up_no_command(harness: Harness, asker: Asker) -> None:
    async with harness.worker(queries=2, prefetch=64):
        blocker = await asyncpg.connect(dsn(harness.settings.database.url.get_secret_value()))
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.create_task(asker("order.list")) for _ in range(6)]
        await eventually(_locked(harness, 2))
        began = time.monotonic()
        ids = await harness.send_all(creates(range(300)))
        for id_ in ids:
            await harness.event(id_)
        assert time.monotonic() - began < 8
        assert not any(task.done() for task in waiting)
        await transaction.rollback()
        await blocker.close()
        assert [answer["items"] for answer in await asyncio.gather(*waiting)] == [[]] * 6


def _locked(harness: Harness, number: int) -> Any:
    async def look() -> bool:
        found = await harness.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        return bool(found[0]["count"] == number)

    return look


async def test_beyond_what_may_wait_queries_are_refused_at_once(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker(queries=1, prefetch=16):
        blocker = await asyncpg.connect(dsn(harness.settings.database.url.get_secret_value()))
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        # One is under way, two wait.
        waiting = [asyncio.create_task(asker.event("order.list")) for _ in range(4)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result()["data"]["code"] for task in done} == {"busy"}
        await transaction.rollback()
        await blocker.close()
        codes = [answer["data"].get("code") for answer in await asyncio.gather(*waiting)]
        assert sorted(codes, key=str) == [None, None, None, "busy"]


async def test_a_query_ends_with_its_messages_expiration(harness: Harness, asker: Asker) -> None:
    async with harness.worker():
        blocker = await asyncpg.connect(dsn(harness.settings.database.url.get_secret_value()))
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        event = await asker.send(
            json.dumps({"id": "slow", "type": "order.list"}), "slow", expiration=0.5
        )
        assert event["type"] == "order.list.failed"
        assert event["data"]["code"] == "timed_out"
        await eventually(_locked(harness, 0))
        await transaction.rollback()
        await blocker.close()
        assert (await asker("order.list"))["items"] == []


async def test_pages_neither_skip_nor_repeat_a_row_while_others_come_and_go(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker():
        await harness.pool.execute(
            "INSERT INTO users (username, email, rating) SELECT 'u' || n, 'u' || n || '@b.de',"
            " CASE WHEN n % 3 > 0 THEN n % 5 END FROM generate_series(1, 57) AS n"
        )
        for order in (["rating"], ["-rating", "email"], ["-created_on", "-username"], ["-email"]):
            asked: dict[str, Any] = {"order_by": order, "limit": 10}
            before = await harness.rows("SELECT username FROM users")
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = await asker("user.list", asked | ({"after": cursor} if cursor else {}))
                seen += names(page)
                cursor = page["next"]
                if cursor is None:
                    break
                await harness.pool.execute("DELETE FROM users WHERE username = $1", seen[-1])
                await harness.pool.execute(
                    "INSERT INTO users (username, email) SELECT $1::text, $1::text || '@b.de'"
                    " ON CONFLICT DO NOTHING",
                    f"new-{order[0]}-{len(seen)}",
                )
            assert len(set(seen)) == len(seen)
            assert set(seen) >= {row["username"] for row in before}


async def test_a_cursor_of_another_query_and_one_that_was_altered_are_refused(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker():
        await some_users(harness)
        page = await asker("user.list", {"limit": 1})
        for asked in (
            {"after": page["next"], "order_by": ["username"]},
            {"after": page["next"], "where": {"username": "ann"}},
            {"after": page["next"][:-1] + ("A" if page["next"][-1] != "A" else "B")},
            {"after": "x"},
            {"after": 5},
            {"after": "é"},
        ):
            problem = await asker.problem("user.list", asked)
            assert problem["errors"][0]["pointer"] == "/data/after", asked
        following = await asker("user.list", {"limit": 2, "after": page["next"]})
        assert names(following) == ["Bob", "cy"]


async def test_a_page_holds_no_more_than_a_mebibyte(harness: Harness, asker: Asker) -> None:
    async with harness.worker():
        await harness.pool.execute(
            "ALTER TABLE users ALTER username TYPE text, DROP CONSTRAINT uq_users_username"
        )
        await harness.pool.execute(
            "INSERT INTO users (username, email) SELECT n || repeat('x', 300000), n || '@b.de'"
            " FROM generate_series(1, 5) AS n"
        )
        await harness.pool.execute("INSERT INTO orders (user_id) SELECT id FROM users")
        page = await asker("user.list")
        assert len(page["items"]) == 3
        rest = await asker("user.list", {"after": page["next"]})
        assert len(rest["items"]) == 2
        assert rest["next"] is None
        problem = await asker.problem("order.list", {"include": ["user"]})
        assert problem["code"] == "too_large"
        assert len((await asker("order.list", {"include": ["user"], "limit": 3}))["items"]) == 3


async def test_a_query_cannot_write(harness: Harness, asker: Asker) -> None:
    async with harness.worker() as service:
        engine = service._query_engine
        async with engine.connect() as connection:
            found = await connection.exec_driver_sql("SHOW transaction_read_only")
            assert found.scalar_one() == "on"


async def test_queries_that_are_switched_off_are_no_known_type(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker(queries=0):
        event = await asker.event("user.list")
        assert event["type"] == "command.rejected"
        assert event["data"]["code"] == "unknown_type"


async def test_who_may_ask_what(harness: Harness, asker: Asker) -> None:
    async with harness.worker(authorization={"guest": ["user.get"]}):
        await some_users(harness)
        body = json.dumps({"id": "1", "type": "user.list"})
        barred = await asker.send(body, "1", user_id="guest")
        assert barred["data"]["code"] == "forbidden"
        body = json.dumps({"id": "2", "type": "user.get", "target": {"username": "ann"}})
        allowed = await asker.send(body, "2", user_id="guest")
        assert allowed["data"]["username"] == "ann"


async def test_a_replica_answers_where_there_is_one(
    harness: Harness, asker: Asker, empty_database: str
) -> None:
    await migrate(empty_database)
    database = harness.settings.database.model_dump() | {"replica_url": empty_database}
    async with harness.worker(database=database):
        await some_users(harness)
        assert (await asker("user.list"))["items"] == []
        event = await harness.ask("user.create", data={"username": "z", "email": "z@b.de"})
        assert event.json["type"] == "user.created"


async def test_while_its_database_is_away_a_query_waits_until_its_deadline(
    harness: Harness, asker: Asker
) -> None:
    nobody = "postgresql+asyncpg://postgres@127.0.0.1:1/postgres"
    database = harness.settings.database.model_dump() | {"replica_url": nobody}
    async with harness.worker(database=database):
        event = await asker.send(
            json.dumps({"id": "away", "type": "user.list"}), "away", expiration=0.5
        )
        assert event["data"]["code"] == "timed_out"


async def test_a_query_that_was_taken_and_never_answered_is_delivered_again(
    harness: Harness, asker: Asker
) -> None:
    async with harness.worker(shutdown_seconds=0.3):
        blocker = await asyncpg.connect(dsn(harness.settings.database.url.get_secret_value()))
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(asker("order.list"))
        await eventually(_locked(harness, 1))
    await transaction.rollback()
    await blocker.close()
    async with harness.worker():
        assert (await waiting)["items"] == []
