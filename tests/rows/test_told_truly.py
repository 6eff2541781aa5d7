"""What an event shows is what the database has, whatever it has made of what was sent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    CheckConstraint,
    Computed,
    Index,
    Integer,
    Numeric,
    String,
    TypeDecorator,
    UniqueConstraint,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import CITEXT, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tests.rows.desk import Desk, Odd, create, delete, errors, types, update
from worker.core.payloads import Key, Payload, omitted
from worker.processing.crud import crud_entity

GROUP = 25


class Upper(TypeDecorator[str]):
    """Stored in upper case, read in lower case."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value.upper()

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value.lower()


class Thing(Odd):
    __tablename__ = "things"

    name: Mapped[str] = mapped_column(String(10), unique=True)
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    code: Mapped[str | None] = mapped_column(String(5).with_variant(String(5), "postgresql"))
    shout: Mapped[str | None] = mapped_column(Upper(20))
    document: Mapped[Any] = mapped_column(JSONB, nullable=True)
    plain: Mapped[Any] = mapped_column(JSON, nullable=True)
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    small: Mapped[int | None] = mapped_column(Integer)
    double: Mapped[int | None] = mapped_column(Integer, Computed("small * 2", persisted=True))
    position: Mapped[int] = mapped_column(default=7)
    counted: Mapped[int] = mapped_column(
        default=select(func.length("four")).scalar_subquery(), onupdate=func.length("three")
    )


class ThingKey(Key):
    name: str = omitted()


class ThingCreate(Payload):
    name: str
    price: float | None = None
    code: str | None = None
    shout: str | None = None
    document: Any = omitted()
    plain: Any = omitted()
    numbers: list[int] | None = None
    small: int | None = None
    position: int = omitted()


class ThingUpdate(ThingCreate):
    name: str = omitted()


THING = crud_entity(
    name="thing", model=Thing, create=ThingCreate, update=ThingUpdate, target=ThingKey
)


async def stored(desk: Desk) -> dict[str, dict[str, Any]]:
    """The rows by their names, as an event shows them."""
    rows = await desk.rows("SELECT * FROM things")
    for row in rows:
        row["price"] = None if row["price"] is None else str(row["price"])
        row["shout"] = row["shout"] and row["shout"].lower()
    return {
        row["name"]: {name: value for name, value in row.items() if not name.endswith("_on")}
        for row in rows
    }


def data(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event["data"].items() if not name.endswith("_on")}


@pytest.mark.parametrize("size", [1, 2, GROUP])
async def test_values_that_their_columns_change(desk: Desk, size: int) -> None:
    await desk.open(THING)
    sent = [
        create(
            "thing",
            name=f"n{number}",
            price=number + 0.125,
            shout="Loud",
            document=[],
            plain={"a": [1, None]},
            numbers=[number, 2],
            small=number,
        )
        for number in range(size)
    ]
    created = await desk.together(*sent)
    rows = await stored(desk)
    assert [data(event) for event in created] == [rows[f"n{n}"] for n in range(size)]
    assert rows["n0"]["document"] == []
    assert rows["n0"]["numbers"] == [0, 2]
    assert {row["position"] for row in rows.values()} == {7}
    assert {row["counted"] for row in rows.values()} == {4}

    changes = [
        update("thing", {"name": f"n{n}"}, document=[1, 2], numbers=[], price=1.005, small=n + 1)
        for n in range(size)
    ]
    updated = await desk.together(*changes)
    rows = await stored(desk)
    assert [data(event) for event in updated] == [rows[f"n{n}"] for n in range(size)]
    assert rows["n0"]["document"] == [1, 2]
    assert {row["counted"] for row in rows.values()} == {5}

    deleted = await desk.together(*(delete("thing", name=f"n{n}") for n in range(size)))
    assert [data(event) for event in deleted] == [rows[f"n{n}"] for n in range(size)]
    assert await stored(desk) == {}


async def test_a_value_that_is_too_long_is_refused_and_not_cut(desk: Desk) -> None:
    await desk.open(THING)
    good, bad = create("thing", name="good"), create("thing", name="much too long")
    events = await desk.together(good, bad, update("thing", {"name": "good"}, code="far too long"))

    assert types(events) == ["created", "create.rejected", "update.rejected"]
    assert errors(events[1]) == ("conflict", "/data/name")
    assert errors(events[2]) == ("conflict", "/data/code")
    assert [*await stored(desk)] == ["good"]


DESCENDING = "ALTER SEQUENCE things_id_seq INCREMENT -1 MINVALUE -1000 MAXVALUE 5000 RESTART 5000"
SCATTERED = """
    CREATE FUNCTION scatter() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.id := abs(hashtext(NEW.name || '')) + 1; RETURN NEW; END $$;
    CREATE TRIGGER scatter BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION scatter()
"""
NO_NAME = SCATTERED.replace("scatter", "rename").replace(
    "NEW.id := abs(hashtext(NEW.name || '')) + 1", "NEW.name := 'x' || NEW.id"
)


@pytest.mark.parametrize("rule", [DESCENDING, SCATTERED, NO_NAME], ids=["down", "any", "renamed"])
async def test_each_event_has_the_id_of_its_own_row(desk: Desk, rule: str) -> None:
    await desk.open(THING, sql=rule.split("\n    CREATE T")[:1])
    if "TRIGGER" in rule:
        await desk.sql("CREATE T" + rule.split("\n    CREATE T")[1])
    sent = [create("thing", name=f"n{n}", small=n) for n in range(GROUP)]
    events = await desk.together(*sent)

    rows = {row["id"]: row for row in await desk.rows("SELECT * FROM things")}
    assert len(rows) == GROUP
    for number, event in enumerate(events):
        assert event["data"]["small"] == number
        assert rows[event["data"]["id"]]["small"] == number
        assert rows[event["data"]["id"]]["name"] == event["data"]["name"]


async def test_rows_that_are_alike_in_all_that_was_given_are_interchangeable(desk: Desk) -> None:
    class Same(Odd):
        __tablename__ = "same"
        kind: Mapped[str]
        document: Mapped[Any] = mapped_column(JSONB)

    class Data(Payload):
        kind: str
        document: Any

    same = crud_entity(name="same", model=Same, create=Data, update=Data)
    await desk.open(same)
    sent = [
        create("same", kind=kind, document=document)
        for kind in ("a", "b", "a")
        for document in ([1], {"x": [True]}, {"x": [1]}, None)
    ]
    events = await desk.together(*sent)

    assert [[event["data"][n] for n in ("kind", "document")] for event in events] == [
        [command["data"][n] for n in ("kind", "document")] for command in sent
    ]
    assert len({event["data"]["id"] for event in events}) == len(sent)


LOWERED = """
    CREATE FUNCTION lower_name() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.name := lower(NEW.name); NEW.small := NEW.small + 1; RETURN NEW; END $$
"""
ON_WRITE = """
    CREATE TRIGGER lower_name BEFORE INSERT OR UPDATE ON things
    FOR EACH ROW EXECUTE FUNCTION lower_name()
"""


async def test_what_a_trigger_makes_of_a_row_is_seen_by_event_and_followers(desk: Desk) -> None:
    commands = [
        create("thing", name="ANN", small=1),
        create("thing", name="ann"),
        update("thing", {"name": "ANN"}, small=5),
        update("thing", {"name": "ann"}, small=6),
        create("thing", name="EVE", small=1),
        delete("thing", name="ann"),
        create("thing", name="ANN", small=2),
    ]
    seen = []
    for way in (Desk.one_by_one, Desk.together):
        await desk.open(
            THING, sql=["DROP FUNCTION IF EXISTS lower_name CASCADE", LOWERED, ON_WRITE]
        )
        events = await way(desk, *commands)
        seen.append([(event["type"], event["data"].get("small")) for event in events])
        assert {row["name"] for row in await desk.rows("SELECT * FROM things")} == {"ann", "eve"}
    assert seen[0] == seen[1]
    assert [type_ for type_, _ in seen[0]] == [
        "thing.created",
        "thing.create.rejected",
        "thing.update.rejected",
        "thing.updated",
        "thing.created",
        "thing.deleted",
        "thing.created",
    ]


PASS_OVER = """
    CREATE FUNCTION pass_over() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
      IF TG_OP <> 'INSERT' AND OLD.name LIKE 'kept%' THEN RETURN NULL; END IF;
      IF TG_OP = 'INSERT' AND NEW.name LIKE 'not%' THEN RETURN NULL; END IF;
      IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
      RETURN NEW;
    END $$
"""


async def test_a_write_that_a_trigger_passes_over_is_refused(desk: Desk) -> None:
    trigger = (
        "BEFORE INSERT OR UPDATE OR DELETE ON things FOR EACH ROW EXECUTE FUNCTION pass_over()"
    )
    await desk.open(THING, sql=[PASS_OVER, f"CREATE TRIGGER pass_over {trigger}"])
    events = await desk.together(
        create("thing", name="kept"),
        create("thing", name="not this"),
        create("thing", name="other"),
        update("thing", {"name": "kept"}, small=1),
        update("thing", {"name": "other"}, small=1),
        delete("thing", name="kept"),
        delete("thing", name="other"),
    )

    rejected = ["create.rejected", "update.rejected", "delete.rejected"]
    assert types(events) == [
        "created",
        rejected[0],
        "created",
        rejected[1],
        "updated",
        rejected[2],
        "deleted",
    ]
    assert {errors(event)[0] for event in events if "rejected" in event["type"]} == {"conflict"}
    assert [*await stored(desk)] == ["kept"]


async def test_a_value_that_is_replaced_in_the_group_is_seen_by_its_rules(desk: Desk) -> None:
    class Pair(Odd):
        __tablename__ = "pairs"
        a: Mapped[int] = mapped_column(CheckConstraint("a < 100", name="a_is_small"))
        b: Mapped[int]
        __table_args__ = (*Odd.rules(), UniqueConstraint("a", "b"))

    class Data(Payload):
        a: int = omitted()
        b: int = omitted()

    pair = crud_entity(name="pair", model=Pair, create=Data, update=Data)
    seen = []
    for way in (Desk.one_by_one, Desk.together):
        await desk.open(pair)
        first, second = await desk.together(create("pair", a=1, b=1), create("pair", a=2, b=2))
        one, two = ({"id": each["data"]["id"]} for each in (first, second))
        events = await way(
            desk,
            update("pair", one, a=100),
            update("pair", one, a=5),
            # Taken now, and free when all is written.
            update("pair", two, a=5, b=1),
            update("pair", one, a=6),
            update("pair", two, a=5, b=1),
            create("pair", a=6, b=1),
        )
        seen.append(types(events))
        assert errors(events[0]) == ("conflict", "/data")
        assert errors(events[2]) == ("conflict", "/data/a")
    rejected = "update.rejected"
    expected = [rejected, "updated", rejected, "updated", "updated", "create.rejected"]
    assert seen == [expected] * 2


class Folded(Odd):
    __tablename__ = "folded"
    ignore_case = frozenset({"email"})
    email: Mapped[str | None] = mapped_column(String(60))
    nick: Mapped[str | None] = mapped_column(CITEXT, unique=True)
    __table_args__ = (
        *Odd.rules(),
        Index("uq_folded_email", func.lower(email), unique=True),
    )


async def test_two_values_are_equal_where_the_database_says_so(desk: Desk) -> None:
    class FoldedKey(Key):
        email: str = omitted()
        nick: str = omitted()

    class Data(Payload):
        email: str | None = omitted()
        nick: str | None = omitted()

    folded = crud_entity(name="folded", model=Folded, create=Data, update=Data, target=FoldedKey)
    commands = [
        create("folded", email="émile@x.example", nick="Zoë"),
        create("folded", email="ÉMILE@x.example"),
        update("folded", {"email": "ÉMILE@X.example"}, nick="ZOË"),
        update("folded", {"nick": "zOË"}, email="Ärger@x.example"),
        update("folded", {"email": "ÄRGER@x.example"}, nick=None),
        create("folded", nick="ZOË", email=None),
        create("folded", nick=None, email=None),
        delete("folded", email="ärGER@x.example"),
        create("folded", email="ÄRGER@x.example"),
    ]
    seen = []
    for way in (Desk.one_by_one, Desk.together):
        await desk.sql("CREATE EXTENSION IF NOT EXISTS citext")
        await desk.open(folded)
        seen.append([*map(_but_ids, await way(desk, *commands))])
    assert seen[0] == seen[1]
    assert [type_.removeprefix("folded.") for type_, _ in seen[0]] == [
        "created",
        "create.rejected",
        *["updated"] * 3,
        "created",
        "created",
        "deleted",
        "created",
    ]


def _but_ids(event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return event["type"], {name: event["data"].get(name) for name in ("email", "nick", "version")}


async def test_numbers_that_json_does_not_have_leave_the_event_json(desk: Desk) -> None:
    class Measured(Odd):
        __tablename__ = "measured"
        size: Mapped[float]
        label: Mapped[str | None]

    class Data(Payload):
        label: str

    measured = crud_entity(name="measured", model=Measured, create=Data, update=Data)
    await desk.open(measured, sql=["INSERT INTO measured (size) VALUES ('NaN'), ('-Infinity')"])
    events = await desk.together(
        *(update("measured", {"id": number}, label="x") for number in (1, 2))
    )
    assert [event["data"]["size"] for event in events] == ["NaN", "-Infinity"]
