"""What a query finds, beside a naive evaluation; what it costs; what it must never do."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from dev.databases import dsn
from tests.support.filters import EMAILS, NUMBERS, TEXTS, TIMES, Rows, Where, conditions, matches
from tests.support.harness import Nowhere
from worker.codec.codec import Codec
from worker.core.messages import Delivery, Query
from worker.core.registry import load_registry
from worker.database.engine import make_query_engine
from worker.processing.queries.reader import Reader
from worker.settings.settings import DatabaseSettings

REGISTRY = load_registry("worker.entities")
CODEC = Codec(REGISTRY)
PAGE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()


class Asked:
    """A reader over a database with rows of every kind, and the statements that it has sent."""

    def __init__(self, reader: Reader, rows: Rows) -> None:
        self.rows = rows
        self.statements: list[str] = []
        self._reader = reader

    async def __call__(self, type_: str, data: Any = None, **members: Any) -> dict[str, Any]:
        body = json.dumps({"type": type_, "data": data, **members}).encode()
        item = CODEC.decode(Delivery(body, tag=0, source=Nowhere(), reply_to="somebody"))
        assert isinstance(item, Query), item
        self.statements.clear()
        return await self._reader.read(item)

    async def ids(self, entity: str, where: Where) -> list[int]:
        answer = await self(f"{entity}.list", {"where": where, "limit": 1000, "fields": ["id"]})
        return [item["id"] for item in answer["items"]]


@pytest.fixture
async def ask(database: str) -> AsyncIterator[Asked]:
    connection = await asyncpg.connect(dsn(database))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for number, name in enumerate(TEXTS):
        email = EMAILS[number] if number < len(EMAILS) else f"{number}@x.org"
        rating = NUMBERS[number // 2] if number % 2 else None
        created = datetime.fromisoformat(TIMES[number % 3])
        await connection.execute(
            "INSERT INTO users (username, email, rating, created_on) VALUES ($1, $2, $3, $4)",
            *(name, email, rating, created),
        )
    for number in range(12):
        await connection.execute(
            "INSERT INTO orders (user_id, is_completed, created_on) VALUES ($1, $2, $3)",
            *(number * number % 7 + 1, number % 3 == 0, now + timedelta(hours=number)),
        )
    rows = {
        entity: [dict(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY id")]
        for entity, table in (("user", "users"), ("order", "orders"))
    }
    await connection.close()
    engine = make_query_engine(DatabaseSettings.model_validate({"url": database}), 1, name="test")
    asked = Asked(Reader(engine, REGISTRY), rows)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        asked.statements.append(arguments[2])

    yield asked
    await engine.dispose()


async def agrees(ask: Asked, entity: str, where: Where) -> None:
    found = await ask.ids(entity, where)
    assert found == [it["id"] for it in ask.rows[entity] if matches(ask.rows, entity, it, where)]
    rest = await ask.ids(entity, {"not": where})
    assert sorted(found + rest) == [it["id"] for it in ask.rows[entity]]


_ENTITIES = st.sampled_from(["user", "order"])
_ASKED = _ENTITIES.flatmap(lambda entity: st.tuples(st.just(entity), conditions(entity)))
_RULES: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}


@given(asked=_ASKED)
@settings(max_examples=100, **_RULES)
async def test_a_filter_finds_what_a_naive_evaluation_finds(
    ask: Asked, asked: tuple[str, Where]
) -> None:
    await agrees(ask, *asked)


@pytest.mark.long
@pytest.mark.timeout(600)
@given(asked=_ASKED)
@settings(max_examples=5_000, **_RULES)
async def test_thousands_of_filters_find_what_a_naive_evaluation_finds(
    ask: Asked, asked: tuple[str, Where]
) -> None:
    await agrees(ask, *asked)


@pytest.mark.parametrize(
    "where",
    [
        {"username": {"contains": "%"}},
        {"username": {"starts_with": "a_"}},
        {"username": {"ends_with": "/n"}},
        {"username": {"contains": "\\"}},
        {"username": "'; DROP TABLE users; --"},
        {"username": {"eq": "x" * 151}},  # longer than the column: equal to nothing, not cut
        {"email": {"in": ["ANN@example.COM", "a%@B.de"]}},
        {"id": {"in": list(range(-500, 500))}},
        {"not": {"not": {"not": {"not": {"not": {"not": {"rating": 4.5}}}}}}},
        {"and": [{"orders": {"some": {"user": {"orders": {"every": {"user": {}}}}}}}]},
        {"not": {"rating": {"gt": 0}}},
        {"rating": {"not_in": [4.5]}},
        {"rating": {"ne": 4.5}},
        {"id": {"in": []}},
        {"id": {"not_in": []}},
        {"or": []},
        {},
    ],
)
async def test_a_filter_that_is_out_of_the_common(ask: Asked, where: Where) -> None:
    await agrees(ask, "user", where)


async def test_a_list_takes_one_statement_and_one_more_for_each_relation(ask: Asked) -> None:
    await ask("user.list", {"limit": 100})
    assert len(ask.statements) == 1
    await ask("user.list", {"include": ["orders"]})
    assert len(ask.statements) == 2
    await ask("order.list", {"include": ["user"], "order_by": ["-created_on"]})
    assert len(ask.statements) == 2
    await ask("user.get", target={"username": "ann"})
    assert len(ask.statements) == 1
    await ask("order.list", {"aggregate": {"count": True}, "group_by": ["user_id"]})
    assert len(ask.statements) == 1


async def test_no_value_ever_stands_in_a_statement(ask: Asked) -> None:
    evil = "x'); DELETE FROM users; --"
    await ask(
        "user.list",
        {"where": {"or": [{"username": {"contains": evil}}, {"email": {"in": [evil, "b"]}}]}},
    )
    assert not any("DELETE" in statement for statement in ask.statements)
    assert len(await ask.ids("user", {})) == len(TEXTS)


@pytest.mark.parametrize("body", re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
async def test_an_example_of_the_docs_is_answered(ask: Asked, body: str) -> None:
    query = json.loads(body)
    answer = await ask(query.pop("type"), **query)
    assert answer.keys() <= {"items", "next", "groups"} or answer["username"] == "ann"


async def test_nulls_come_last_in_either_direction(ask: Asked) -> None:
    for order in ("rating", "-rating"):
        answer = await ask("user.list", {"order_by": [order], "fields": ["rating"]})
        ratings = [item["rating"] for item in answer["items"]]
        known = [rating for rating in ratings if rating is not None]
        assert ratings[: len(known)] == known == sorted(known, reverse=order.startswith("-"))


async def test_groups_are_paged(ask: Asked) -> None:
    asked = {"aggregate": {"count": True, "max": ["id"]}, "group_by": ["user_id"], "limit": 2}
    seen, cursor = [], None
    while True:
        page = await ask("order.list", asked | ({"after": cursor} if cursor else {}))
        seen += [(it["group"]["user_id"], it["count"], it["max"]["id"]) for it in page["groups"]]
        cursor = page["next"]
        if cursor is None:
            break
    orders = ask.rows["order"]
    users = sorted({it["user_id"] for it in orders})
    expected = [[it["id"] for it in orders if it["user_id"] == user] for user in users]
    assert seen == [(user, len(ids), max(ids)) for user, ids in zip(users, expected, strict=True)]
