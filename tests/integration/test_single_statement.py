"""A create alone in its group is one statement, and all that was promised still holds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.harness import Harness, Nowhere
from tests.support.processors import processor_on
from worker.codec.codec import Codec
from worker.core.messages import Delivery, Done, Job, Outcome, Refused
from worker.core.registry import load_registry
from worker.database import ledger
from worker.database.engine import make_sessions
from worker.database.pool.pool import pool_of
from worker.processing.single_statement import ID_TO_COME

ANN = {"username": "ann", "email": "ann@example.com"}


class Desk:
    """Carries out one command at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        registry = load_registry("worker.entities")
        self.codec = Codec(registry)
        self.sessions = make_sessions(engine)
        self.processor = processor_on(engine, registry, self.codec)

    async def ask(self, id_: str, type_: str, **members: Any) -> Outcome:
        body = json.dumps({"id": id_, "type": type_, **members}).encode()
        job = Job(self.codec.decode(Delivery(body, 0, Nowhere())))
        (outcome,) = await self.processor.process([job])
        return outcome


@pytest.fixture
def desk(engine: AsyncEngine) -> Desk:
    return Desk(engine)


async def test_the_ledger_holds_the_event_as_published(desk: Desk, harness: Harness) -> None:
    outcome = await desk.ask("c", "user.create", data=ANN)

    assert isinstance(outcome, Done)
    (user,) = await harness.rows("SELECT * FROM users")
    event = json.loads(outcome.answer.body)
    assert event["subject"] == f"user/{user['id']}"
    assert event["data"]["id"] == user["id"]
    columns = "id username email rating version created_on updated_on"
    assert [*event["data"]] == columns.split()
    async with desk.sessions() as session:
        entries = await ledger.lookup(session, ["c"])
    assert entries["c"].answer == outcome.answer


async def test_a_duplicate_writes_nothing_and_gets_the_same_answer(
    desk: Desk, harness: Harness
) -> None:
    first = await desk.ask("c", "user.create", data=ANN)
    assert isinstance(first, Done)
    await harness.rows("DELETE FROM users")  # so that no other constraint helps

    again = await desk.ask("c", "user.create", data=ANN)

    assert isinstance(again, Done)
    assert again.answer.replayed
    assert again.answer.body == first.answer.body
    assert await harness.rows("SELECT * FROM users") == []


async def test_twenty_at_once_have_one_effect(desk: Desk, harness: Harness) -> None:
    outcomes = await asyncio.gather(
        *(desk.ask("c", "user.create", data={**ANN, "rating": 1.5}) for _ in range(20))
    )

    assert {type(outcome) for outcome in outcomes} == {Done}
    assert len({outcome.answer.body for outcome in outcomes if isinstance(outcome, Done)}) == 1
    assert len(await harness.rows("SELECT * FROM users")) == 1


async def test_a_name_that_is_taken_is_refused_and_recorded(desk: Desk, harness: Harness) -> None:
    await desk.ask("c", "user.create", data=ANN)

    outcome = await desk.ask("d", "user.create", data={**ANN, "email": "eve@example.com"})

    assert isinstance(outcome, Refused)
    assert json.loads(outcome.answer.body)["data"]["code"] == "conflict"
    assert await harness.rows("SELECT outcome FROM command_ledger WHERE command_id = 'd'") == [
        {"outcome": "refused"}
    ]


async def test_a_reference_to_nothing_is_refused_and_recorded(desk: Desk, harness: Harness) -> None:
    outcome = await desk.ask("o", "order.create", data={"user_id": 1})

    assert isinstance(outcome, Refused)
    assert json.loads(outcome.answer.body)["data"]["code"] == "not_found"
    assert await harness.rows("SELECT outcome FROM command_ledger") == [{"outcome": "refused"}]


async def test_a_ledger_that_takes_nothing_leaves_no_row(desk: Desk, harness: Harness) -> None:
    await harness.rows("ALTER TABLE command_ledger ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    try:
        outcome = await desk.ask("c", "user.create", data=ANN)
    finally:
        await harness.rows("ALTER TABLE command_ledger DROP CONSTRAINT nothing")

    assert not isinstance(outcome, Done)
    assert await harness.rows("SELECT * FROM users") == []


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ("NEW.username := upper(NEW.username)", {"username": "ANN"}),
        ("NEW.email := 'x@' || split_part(NEW.email, '@', 2)", {"email": "x@example.com"}),
        ("NEW.rating := 3", {"rating": 3.0}),
        ("NEW.updated_on := '2001-02-03T04:05:06Z'", {"updated_on": "2001-02-03T04:05:06Z"}),
        ("NEW.version := 5", {"version": 5}),
        ("NEW.id := 77", {"id": 77}),
    ],
)
async def test_the_event_shows_the_row_as_a_trigger_left_it(
    desk: Desk, harness: Harness, body: str, stored: dict[str, Any]
) -> None:
    await harness.rows(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body}; RETURN NEW; END $$"
    )
    await harness.rows(
        "CREATE TRIGGER odd BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION odd()"
    )

    outcome = await desk.ask("c", "user.create", data=ANN)

    assert isinstance(outcome, Done)
    event = json.loads(outcome.answer.body)
    assert {name: event["data"][name] for name in stored} == stored
    async with desk.sessions() as session:
        entries = await ledger.lookup(session, ["c"])
    assert entries["c"].answer == outcome.answer
    (row,) = await harness.rows("SELECT id, username, email, rating FROM users")
    assert {name: event["data"][name] for name in row} == row


async def test_a_row_that_is_passed_over_is_no_done(desk: Desk, harness: Harness) -> None:
    await harness.rows(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
    )
    await harness.rows(
        "CREATE TRIGGER odd BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION odd()"
    )

    outcome = await desk.ask("c", "user.create", data=ANN)

    assert not isinstance(outcome, Done)
    assert await harness.rows("SELECT outcome FROM command_ledger WHERE outcome = 'done'") == []


async def test_text_that_looks_like_an_id_stays_as_it_is(desk: Desk, harness: Harness) -> None:
    name = str(ID_TO_COME)[:-1]

    outcome = await desk.ask("c", "user.create", data={**ANN, "username": name})

    assert isinstance(outcome, Done)
    assert json.loads(outcome.answer.body)["data"]["username"] == name


async def test_the_connection_serves_transactions_again(desk: Desk, engine: AsyncEngine) -> None:
    await desk.ask("c", "user.create", data=ANN)

    async with engine.connect() as connection:
        await connection.execute(text("DELETE FROM users"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT count(*) FROM users")) == 1
    assert pool_of(engine).meter.created == 1
