"""Rows are read and written many at a time, by key, and always as the database has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Connection, ForeignKey, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from tests.support.harness import Harness
from worker.core.messages import Target, utc_now
from worker.core.models import Base, Row
from worker.core.payloads import Payload
from worker.core.registry import Reference, Registry
from worker.database.engine import make_engine, make_sessions
from worker.entities.order import ORDER
from worker.entities.user import USER
from worker.processing.crud import crud_entity
from worker.processing.row_cache import Record
from worker.processing.unit_of_work import UnitOfWork
from worker.settings.settings import Settings

REGISTRY = Registry([ORDER, USER])  # not in the order in which they depend on each other


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(settings.database)
    yield engine
    await engine.dispose()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with make_sessions(engine)() as session:
        yield session


@pytest.fixture
def work(session: AsyncSession) -> UnitOfWork:
    return UnitOfWork(session, REGISTRY)


def new_user(work: UnitOfWork, name: str, **values: Any) -> Record:
    now = utc_now()
    return work.rows(USER).create(
        {"username": name, "email": f"{name}@example.com", "rating": None}
        | {"version": 1, "created_on": now, "updated_on": now}
        | values
    )


async def test_ids_belong_to_the_rows_that_they_were_made_for(
    work: UnitOfWork, session: AsyncSession
) -> None:
    made = [new_user(work, f"user-{number * 7919 % 1000:03}") for number in range(300)]
    await work.flush()

    found = await session.execute(text("SELECT id, username FROM users"))
    assert {record.id: record.username for record in made} == {row[0]: row[1] for row in found}


async def test_what_depends_on_a_row_is_written_after_it_and_deleted_before(
    work: UnitOfWork, session: AsyncSession
) -> None:
    user = new_user(work, "ann")
    await work.flush()
    now = utc_now()
    order = work.rows(ORDER).create(
        {"user_id": user.id, "is_completed": False}
        | {"version": 1, "created_on": now, "updated_on": now}
    )
    await work.flush()
    work.rows(USER).delete(user)
    work.rows(ORDER).delete(order)
    await work.flush()

    assert await session.scalar(text("SELECT count(*) FROM users")) == 0


async def test_the_database_is_asked_only_when_it_knows_of_every_change(work: UnitOfWork) -> None:
    ann = new_user(work, "ann")
    await work.flush()
    work.rows(USER).change(ann, {"username": "eve"})

    # By a value that is not known yet: the answer must hold the new name, and not bring back "ann".
    assert await work.rows(USER).find("email", "eve@example.com") is None
    assert await work.rows(USER).find("username", "ann") is None
    assert await work.rows(USER).find("username", "eve") is ann
    assert await work.rows(USER).find("email", "ANN@example.com") is ann


async def test_a_locked_look_replaces_what_was_seen_before_the_lock(
    work: UnitOfWork, engine: AsyncEngine, harness: Harness
) -> None:
    async with make_sessions(engine).begin() as other:
        new_user(other_work := UnitOfWork(other, REGISTRY), "ann")
        await other_work.flush()
    seen = await work.rows(USER).find("username", "ann")
    assert seen is not None
    await harness.rows("UPDATE users SET username = 'eve', version = 2")

    assert await work.rows(USER).target(Target("username", "ann")) is None
    assert await work.rows(USER).target(Target("username", "eve")) is seen
    assert seen.version == 2


async def test_counts_hold_what_this_transaction_changed(work: UnitOfWork) -> None:
    ann, eve = new_user(work, "ann"), new_user(work, "eve")
    await work.flush()
    orders = work.rows(ORDER)
    assert await orders.count("user_id", ann.id) == 0
    now = utc_now()
    order = orders.create(
        {"user_id": ann.id, "is_completed": False}
        | {"version": 1, "created_on": now, "updated_on": now}
    )

    assert await orders.count("user_id", ann.id) == 1
    orders.change(order, {"user_id": eve.id})
    assert (await orders.count("user_id", ann.id), await orders.count("user_id", eve.id)) == (0, 1)
    orders.delete(order)
    assert await orders.count("user_id", eve.id) == 0


async def test_no_table_is_read_as_a_whole(harness: Harness) -> None:
    """Statements are planned while the tables are empty, and must not scan them once they grow."""
    async with harness.worker(lanes=1):
        await harness.send_all(
            {"type": "user.create", "data": {"username": f"u{n}", "email": f"u{n}@example.com"}}
            for n in range(200)
        )
        for number in range(200):
            await harness.send("user.update", target={"username": f"u{number}"}, data={"rating": 1})
            await harness.send("order.create", data={"user": {"username": f"u{number}"}})
        await harness.send_all(
            {"type": "user.delete", "target": {"email": f"U{n}@example.com"}} for n in range(100)
        )
        await harness.next_event(after=699)
    assert {event.routing_key for event in harness.events} == {
        "user.created",
        "user.updated",
        "order.created",
        "user.delete.rejected",
    }
    found = await harness.rows(
        "SELECT relname, seq_tup_read, idx_scan FROM pg_stat_user_tables"
        " WHERE relname IN ('users', 'orders', 'command_ledger')"
    )
    assert {row["relname"]: row["seq_tup_read"] for row in found} == dict.fromkeys(
        ("users", "orders", "command_ledger"), 0
    )
    assert all(row["idx_scan"] for row in found)


class Note(Row):
    """With defaults of every kind, and gone with its user."""

    __tablename__ = "notes_of_a_test"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    color: Mapped[str] = mapped_column(default="red")
    label: Mapped[str] = mapped_column(default=lambda: "made here")
    size: Mapped[int] = mapped_column(server_default="7")


Base.metadata.remove(Note.metadata.tables["notes_of_a_test"])  # no migration knows it


class NoteData(Payload):
    user_id: int


async def test_defaults_of_every_kind_are_filled_in(
    session: AsyncSession,
) -> None:
    note = crud_entity(name="note", model=Note, create=NoteData, update=NoteData)
    connection = await session.connection()

    def create_table(connection: Connection) -> None:
        Note.__table__.create(connection)  # type: ignore[attr-defined]

    await connection.run_sync(create_table)
    registry = Registry([USER, note])
    work = UnitOfWork(session, registry)
    user = new_user(work, "ann")
    await work.flush()
    made = [
        work.rows(note).create(
            {"user_id": user.id, "version": 1}
            | {name: default() for name, default in note.defaults.items()}
            | ({"size": number} if number > 1 else {})
        )
        for number in range(4)
    ]
    await work.flush()

    assert [(each.color, each.label, each.size) for each in made] == [
        ("red", "made here", 7),
        ("red", "made here", 7),
        ("red", "made here", 2),
        ("red", "made here", 3),
    ]
    assert all(each.created_on is not None for each in made)


def test_only_what_the_database_does_not_resolve_keeps_a_row() -> None:
    note = crud_entity(
        name="note",
        model=Note,
        create=NoteData,
        update=NoteData,
        references=(Reference("user_id", entity="user", name="user"),),
    )
    registry = Registry([USER, ORDER, note])

    assert [entity.name for entity, _ in registry.dependents(USER)] == ["order"]
    assert registry.dependents(ORDER) == []
