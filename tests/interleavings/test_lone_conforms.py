"""What is done alone: the stand-in for the database does as PostgreSQL does."""

from __future__ import annotations

from math import inf
from typing import Any, cast

import pytest
from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.support.harness import eventually
from tests.support.interleavings.session import Columns
from tests.support.interleavings.stores import Kinds, Store, beside_one_who_holds, conforms, entry
from worker.core.messages import utc_now
from worker.database import rows_sql
from worker.database.ledger import Entry, LedgerRace
from worker.entities.user import User
from worker.processing.fault_kinds import Kind, classify, is_doubtful
from worker.processing.single_statement import ID_TO_COME

USERS = cast(Table, User.__table__)


def ann(number: int = 1, **others: Any) -> dict[str, Any]:
    now = utc_now()
    times = {"version": 1, "created_on": now, "updated_on": now}
    email = f"ann-{number}@x.example"
    return {"username": "ann", "email": email, "rating": None, **times, **others}


def columns(*rows: dict[str, Any]) -> Columns:
    return rows_sql.given({name: [row[name] for row in rows] for name in rows[0]})


async def create_alone(store: Store, row: dict[str, Any], entry: Entry) -> int:
    async with store.alone() as connection:
        insert = rows_sql.insert_rows(USERS, tuple(row))
        return await store.insert_and_record(connection, insert, columns(row), entry)


async def known(store: Store, **wanted: str) -> list[int]:
    """The ids of the users with these values."""
    query = rows_sql.find_rows(USERS, tuple(wanted), User.ignore_case, lock=False)
    async with store.begin() as session:
        found = await session.execute(query, rows_sql.given({n: [v] for n, v in wanted.items()}))
        return [row["id"] for row in found.mappings()]


@conforms
async def test_what_is_created_alone_is_there_with_its_entry(store: Store) -> None:
    body = b'{"id": %d, "subject": "user/%d"}' % (ID_TO_COME, ID_TO_COME)
    id_ = await create_alone(store, ann(), entry("x", body=body))

    assert await known(store, username="ann") == await known(store, email="ANN-1@x.example")
    assert await known(store, username="ann") == [id_]
    async with store.begin() as session:
        answer = (await store.lookup(session, ["x"]))["x"].answer
    assert answer.body == b'{"id": %d, "subject": "user/%d"}' % (id_, id_)


@conforms
async def test_of_what_is_created_together_each_has_an_id_of_its_own(store: Store) -> None:
    given = columns(ann(), ann(2, username="bob"))
    async with store.begin() as session:
        found = await session.execute(rows_sql.insert_rows(USERS, tuple(ann())), given)
        ids = sorted(row["id"] for row in found.mappings())
    assert [*await known(store, username="ann"), *await known(store, username="bob")] == ids


@pytest.mark.parametrize(
    ("row", "id_", "constraint"),
    [
        (ann(2, username="bob"), "x", "pk_command_ledger"),
        (ann(2), "y", "uq_users_username"),
        (ann(1, username="bob", email="Ann-1@X.example"), "y", "uq_users_email_lower"),
        (ann(2, username="bob", rating=inf), "y", "ck_users_rating_finite"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_a_constraint_forbids_leaves_neither_row_nor_entry(
    shared_database: str,
    kind: Kinds,
    row: dict[str, Any],
    id_: str,
    constraint: str,
) -> None:
    store = kind(shared_database)

    async def test() -> None:
        first = await create_alone(store, ann(), entry("x"))
        with pytest.raises(IntegrityError) as caught:
            await create_alone(store, row, entry(id_))
        assert classify(caught.value) is Kind.PERMANENT
        cause = cast(BaseException, caught.value.orig).__cause__
        assert getattr(cause, "constraint_name", None) == constraint
        assert await known(store, username="ann") == [first]
        assert await known(store, username="bob") == []
        async with store.begin() as session:
            assert (await store.lookup(session, ["x", "y"])).keys() == {"x"}

    store.run(test())


@pytest.mark.parametrize("commits", [True, False])
def test_a_create_waits_for_whoever_has_its_id(
    shared_database: str, commits: bool, kind: Kinds
) -> None:
    store = kind(shared_database)

    async def test() -> None:
        async def then() -> int:
            return await create_alone(store, ann(), entry("x"))

        second = await beside_one_who_holds(store, "x", then, commits=commits)
        if commits:
            with pytest.raises(IntegrityError):
                await second
        made = [] if commits else [await second]
        assert await known(store, username="ann") == made

    store.run(test())


@conforms
async def test_what_is_recorded_alone_is_there_once(store: Store) -> None:
    async with store.alone() as connection:
        await store.record(connection, entry("x", body=b"1"))
    with pytest.raises(LedgerRace):
        async with store.alone() as connection:
            await store.record(connection, entry("x", body=b"2"))
    async with store.begin() as session:
        assert (await store.lookup(session, ["x"]))["x"].answer.body == b"1"


@conforms
async def test_a_connection_that_broke_before_a_create_is_an_outage(store: Store) -> None:
    async def lose() -> None:
        async with store.alone() as connection:
            await store.lose(connection)
            insert = rows_sql.insert_rows(USERS, tuple(ann()))
            await store.insert_and_record(connection, insert, columns(ann()), entry("x"))

    with pytest.raises(DBAPIError) as caught:
        await lose()
    assert classify(caught.value) is Kind.OUTAGE
    assert is_doubtful(caught.value)
    assert await known(store, username="ann") == []


@conforms
async def test_a_create_whose_reply_is_lost_was_done(store: Store) -> None:
    store.lose_the_reply_to(b"the-lost-one")  # in the statement's parameters
    with pytest.raises(DBAPIError) as caught:
        await create_alone(store, ann(), entry("the-lost-one"))
    assert classify(caught.value) is Kind.OUTAGE
    assert is_doubtful(caught.value)
    assert await eventually(lambda: known(store, username="ann"))
    async with store.begin() as session:
        assert (await store.lookup(session, ["the-lost-one"])).keys() == {"the-lost-one"}
