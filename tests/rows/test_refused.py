"""What a rule of the database forbids is refused, with the field or the rule's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Numeric,
    SmallInteger,
    String,
    UniqueConstraint,
    column,
    event,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapped, mapped_column

from tests.rows.desk import Desk, Odd, create, delete, errors, types, update
from worker.core.payloads import Key, Payload, RowId, omitted
from worker.core.registry import Entity, Reference
from worker.processing.crud import crud_entity


class Owner(Odd):
    __tablename__ = "owners"
    nick: Mapped[str | None] = mapped_column(String(20), unique=True)


class Ruled(Odd):
    __tablename__ = "ruled"
    name: Mapped[str] = mapped_column(String(10), unique=True)
    short: Mapped[str | None] = mapped_column(String(3))
    tiny: Mapped[int | None] = mapped_column(SmallInteger)
    small: Mapped[int | None]
    price: Mapped[Any] = mapped_column(Numeric(4, 2), nullable=True)
    needed: Mapped[int] = mapped_column(server_default="1")
    place: Mapped[int | None]
    row: Mapped[int | None]
    seat: Mapped[int | None]
    own_code: Mapped[int | None]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    other_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))

    __table_args__ = (
        *Odd.rules(),
        CheckConstraint("small < 100", name="small_is_small"),
        UniqueConstraint("row", "seat"),
        UniqueConstraint("name", "seat", name="name_and_seat"),
        Index("uq_own_code", "own_code", unique=True),
        ExcludeConstraint((column("place"), "="), name="one_at_a_place", using="btree"),
    )


class OwnerKey(Key):
    nick: str = omitted()


class OwnerData(Payload):
    nick: str | None = omitted()


class RuledKey(Key):
    name: str = omitted()


class RuledUpdate(Payload):
    name: str = omitted()
    short: str | None = omitted()
    tiny: int | None = omitted()
    small: int | None = omitted()
    price: float | None = omitted()
    needed: int | None = omitted()
    place: int | None = omitted()
    row: int | None = omitted()
    seat: int | None = omitted()
    own_code: int | None = omitted()
    owner_id: RowId | None = omitted()
    other_id: RowId | None = omitted()
    owner: OwnerKey | None = omitted()


class RuledCreate(RuledUpdate):
    name: str


OWNER = crud_entity(name="owner", model=Owner, create=OwnerData, update=OwnerData, target=OwnerKey)
RULED = crud_entity(
    name="ruled",
    model=Ruled,
    create=RuledCreate,
    update=RuledUpdate,
    target=RuledKey,
    references=(Reference("owner_id", entity="owner", name="owner"),),
)
TAKEN = {"small": 1, "row": 1, "seat": 1, "place": 1, "own_code": 1}

BROKEN = [
    ({"name": "first"}, "conflict", "/data/name", "taken by another ruled"),
    ({"name": "much too long"}, "conflict", "/data/name", "name is too long"),
    ({"short": "long"}, "conflict", "/data/short", "short is too long"),
    ({"small": 100}, "conflict", "/data", "ck_ruled_small_is_small"),
    ({"small": 2**31}, "conflict", "/data/small", ""),
    ({"small": 2**70}, "conflict", "/data/small", ""),
    ({"tiny": 2**15}, "conflict", "/data/tiny", ""),
    ({"price": 100}, "conflict", "/data/price", "price is out of range"),
    ({"needed": None}, "conflict", "/data/needed", "needed must not be null"),
    ({"row": 1, "seat": 1}, "conflict", "/data/row", "the same row and seat"),
    ({"place": 1}, "conflict", "/data", "one_at_a_place"),
    ({"own_code": 1}, "conflict", "/data/own_code", "taken by another ruled"),
    ({"owner_id": 99}, "not_found", "/data/owner_id", "there is no owner with id 99"),
    ({"owner": {"nick": "no"}}, "not_found", "/data/owner", "there is no owner with nick"),
    ({"other_id": 99}, "not_found", "/data/other_id", "to which other_id could refer"),
]


@pytest.mark.parametrize(
    ("data", "code", "pointer", "says"), BROKEN, ids=lambda each: str(each)[:30]
)
async def test_a_rule_that_is_broken(
    desk: Desk, data: dict[str, Any], code: str, pointer: str, says: str
) -> None:
    await desk.open(OWNER, RULED)
    await desk.together(create("ruled", name="first", **TAKEN), create("ruled", name="second"))
    for command in (
        create("ruled", **{"name": "third"} | data),
        update("ruled", {"name": "second"}, **data),
    ):
        (refused,) = await desk.together(command)
        _, first, last = await desk.together(create("owner"), command, create("owner"))
        for event_ in (refused, first):
            assert event_["type"].endswith(".rejected")
            assert errors(event_) == (code, pointer)
            assert says in event_["data"]["detail"]
        assert last["type"] == "owner.created"
    assert len(await desk.rows("SELECT * FROM ruled")) == 2


async def test_what_may_be_null_may_be_set_to_null(desk: Desk) -> None:
    await desk.open(OWNER, RULED)
    owner, _, *more = await desk.together(
        create("owner", nick="ann"),
        create("ruled", name="first", owner={"nick": "ann"}),
        create("owner", nick=None),
        create("owner", nick=None),
        update("ruled", {"name": "first"}, owner=None),
        update("ruled", {"name": "first"}, owner={"nick": "ann"}),
        update("ruled", {"name": "first"}, owner_id=None),
        update("owner", {"nick": "ann"}, nick=None),
    )
    assert types(more) == ["created", "created", "updated", "updated", "updated", "updated"]
    owners = [event_["data"].get("owner_id") for event_ in more[2:5]]
    assert owners == [None, owner["data"]["id"], None]


async def test_a_row_that_tables_of_others_refer_to_stays(desk: Desk) -> None:
    foreign = "CREATE TABLE foreign_table (owner bigint REFERENCES owners)"
    await desk.sql("DROP TABLE IF EXISTS foreign_table")
    await desk.open(OWNER, RULED, sql=[foreign])
    (made,) = await desk.together(create("owner", nick="ann"))
    await desk.sql("INSERT INTO foreign_table SELECT id FROM owners")
    for group in ([delete("owner", nick="ann")], [create("owner"), delete("owner", nick="ann")]):
        refused = (await desk.together(*group))[-1]
        assert errors(refused) == ("conflict", "/target")
        assert "still in use by rows of foreign_table" in refused["data"]["detail"]
    assert made["data"]["id"] in [row["id"] for row in await desk.rows("SELECT id FROM owners")]


async def test_a_value_that_no_index_can_hold(desk: Desk) -> None:
    class Wordy(Odd):
        __tablename__ = "wordy"
        word: Mapped[str] = mapped_column(unique=True)

    class Data(Payload):
        word: str

    await desk.open(crud_entity(name="wordy", model=Wordy, create=Data, update=Data))
    word = "".join(str(number * 7919) for number in range(5_000))
    good, bad = await desk.together(create("wordy", word="a"), create("wordy", word=word))
    assert (good["type"], errors(bad)) == ("wordy.created", ("conflict", "/data"))


@pytest.mark.parametrize(
    "raising",
    ["RAISE EXCEPTION 'secret words'", "RAISE check_violation USING CONSTRAINT = 'of_a_trigger'"],
)
async def test_a_trigger_that_objects(desk: Desk, raising: str) -> None:
    function = f"""CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.nick = 'bad' THEN {raising}; END IF; RETURN NEW; END $$"""
    trigger = "CREATE TRIGGER o BEFORE INSERT ON owners FOR EACH ROW EXECUTE FUNCTION object()"
    await desk.open(OWNER, RULED, sql=["DROP FUNCTION IF EXISTS object CASCADE", function, trigger])
    good, bad = await desk.together(create("owner", nick="good"), create("owner", nick="bad"))
    assert (good["type"], errors(bad)) == ("owner.created", ("conflict", "/data"))
    assert "secret" not in str(bad)
    assert ("of_a_trigger" in bad["data"]["detail"]) == ("of_a_trigger" in raising)


@pytest.fixture
async def as_somebody(engine: AsyncEngine, desk: Desk) -> AsyncIterator[str]:
    """The name of an account that is no superuser, which new connections of the desk then are."""
    name = "somebody_of_a_test"
    await desk.sql(
        f"DROP ROLE IF EXISTS {name}",
        f"CREATE ROLE {name}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
    )
    yield name
    await engine.dispose()
    event.remove(engine.sync_engine, "connect", become_somebody)
    await desk.sql(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def become_somebody(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("SET ROLE somebody_of_a_test")
    cursor.close()
    connection.commit()


async def test_what_a_policy_forbids(desk: Desk, engine: AsyncEngine, as_somebody: str) -> None:
    await desk.open(
        OWNER,
        RULED,
        sql=[
            f"GRANT ALL ON owners, ruled TO {as_somebody}",
            "ALTER TABLE owners ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY sees ON owners FOR SELECT USING (true)",
            "CREATE POLICY makes ON owners FOR INSERT WITH CHECK (nick <> 'forbidden')",
            "CREATE POLICY changes ON owners FOR UPDATE USING (nick <> 'fixed')",
            "CREATE POLICY removes ON owners FOR DELETE USING (nick <> 'fixed')",
            "INSERT INTO owners (nick) VALUES ('fixed')",
        ],
    )
    await engine.dispose()
    event.listen(engine.sync_engine, "connect", become_somebody)
    events = await desk.together(
        create("owner", nick="forbidden"),
        create("owner", nick="free"),
        update("owner", {"nick": "fixed"}, nick="else"),
        delete("owner", nick="fixed"),
        delete("owner", nick="free"),
    )
    assert types(events) == [
        "create.rejected",
        "created",
        "update.rejected",
        "delete.rejected",
        "deleted",
    ]
    assert errors(events[0])[0] == "conflict"
    assert [row["nick"] for row in await desk.rows("SELECT nick FROM owners")] == ["fixed"]


def entity_with_long_names() -> Entity:
    class Long(Odd):
        __tablename__ = "a_table_with_a_name_that_is_nearly_as_long_as_a_name_can_be"
        the_column_of_it: Mapped[int | None] = mapped_column(unique=True)

    class Data(Payload):
        the_column_of_it: int

    return crud_entity(name="long", model=Long, create=Data, update=Data)


async def test_a_rule_whose_name_was_cut(desk: Desk) -> None:
    await desk.open(entity_with_long_names())
    command = create("long", the_column_of_it=1)
    first, second = await desk.together(command, command)
    assert types([first, second]) == ["created", "create.rejected"]
    assert errors(second) == ("conflict", "/data/the_column_of_it")
