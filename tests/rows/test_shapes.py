"""Tables of any name and shape; and what could not be carried out rightly, told at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Computed, ForeignKey, Index, Integer, MetaData, String, func, text
from sqlalchemy.orm import Mapped, mapped_column, registry

from tests.rows.desk import Desk, Odd, create, delete, errors, types, update
from worker.core.errors import Misconfigured
from worker.core.models import NAMING, Row
from worker.core.payloads import Key, Payload, RowId, omitted
from worker.core.registry import Entity, Reference, Registry, Verb
from worker.processing.crud import crud_entity


class Named(Payload):
    name: str = omitted()


class Following(Named):
    parent_id: RowId | None = omitted()


class NamedKey(Key):
    name: str = omitted()


class Parent(Odd):
    __tablename__ = "parents"
    name: Mapped[str] = mapped_column(unique=True)


def family(rule: str) -> tuple[Entity, ...]:
    """A parent, its children, and theirs, which follow it by a foreign key's rule."""

    class Base(Row):
        __abstract__ = True
        # Of its own, for another time the same names.
        _sa_registry = registry(metadata=MetaData(naming_convention=NAMING))
        metadata = _sa_registry.metadata

    class Parent(Base):
        __tablename__ = "parents"
        name: Mapped[str] = mapped_column(unique=True)

    class Child(Base):
        __tablename__ = "children"
        name: Mapped[str] = mapped_column(unique=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id", ondelete=rule))

    class Grandchild(Base):
        __tablename__ = "grandchildren"
        name: Mapped[str] = mapped_column(unique=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("children.id", ondelete=rule))

    def entity(name: str, model: type[Row], data: type[Payload], *references: Reference) -> Entity:
        return crud_entity(
            name=name,
            model=model,
            create=data,
            update=data,
            target=NamedKey,
            references=references,
        )

    return (
        entity("parent", Parent, Named),
        entity("child", Child, Following, Reference("parent_id", entity="parent", name="parent")),
        entity("grandchild", Grandchild, Following),  # its foreign key is no reference
    )


async def _settled(desk: Desk, rule: str) -> list[dict[str, Any]]:
    await desk.open(*family(rule))
    made = await desk.one_by_one(create("parent", name="p"), create("child", name="c", parent_id=1))
    assert types(made) == ["created"] * 2
    return [create("grandchild", name="g", parent_id=1), update("child", {"name": "c"}, name="c2")]


@pytest.mark.parametrize("rule", ["CASCADE", "SET NULL"])
async def test_what_follows_a_delete_follows_it_in_a_group(desk: Desk, rule: str) -> None:
    seen = []
    for way in (Desk.one_by_one, Desk.together):
        before = await _settled(desk, rule)
        events = await way(
            desk,
            *before,
            delete("parent", name="p"),
            update("child", {"name": "c2"}, name="c3"),
            update("grandchild", {"name": "g"}, name="g2"),
            create("grandchild", name="h", parent_id=1),
            delete("child", name="c2"),
            delete("child", name="c3"),
            update("grandchild", {"name": "g2"}, name="g3"),
            create("child", name="d", parent_id=1),
        )
        rows = await desk.rows("SELECT name, parent_id FROM grandchildren ORDER BY name")
        shown = [(event["type"], event["data"].get("parent_id", 0)) for event in events]
        seen.append((shown, rows))
    assert seen[0] == seen[1]
    if rule == "CASCADE":
        assert [type_ for type_, _ in seen[0][0][3:5]] == [
            "child.update.rejected",
            "grandchild.update.rejected",
        ]


async def test_rows_that_refer_to_rows_of_their_own_table(desk: Desk) -> None:
    class Node(Odd):
        __tablename__ = "nodes"
        name: Mapped[str] = mapped_column(unique=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"))

    class Data(Following):
        parent: NamedKey | None = omitted()

    node = crud_entity(
        name="node",
        model=Node,
        create=Data,
        update=Data,
        target=NamedKey,
        references=(Reference("parent_id", entity="node", name="parent"),),
    )
    seen = []
    for way in (Desk.one_by_one, Desk.together):
        await desk.open(node)
        events = await way(
            desk,
            create("node", name="a"),
            create("node", name="b", parent={"name": "a"}),
            create("node", name="c", parent={"name": "b"}),
            update("node", {"name": "c"}, parent=None),
            delete("node", name="a"),
            delete("node", name="b"),
            update("node", {"name": "c"}, name="d"),
        )
        seen.append(types(events))
    expected = ["created"] * 3 + ["updated", "deleted", "delete.rejected", "updated"]
    assert seen == [expected, expected]


async def test_tables_and_columns_of_any_name(desk: Desk) -> None:
    class Order(Odd):
        __tablename__ = 'Mixed "Case"'
        position: Mapped[int]
        label: Mapped[str] = mapped_column("The Label", String(10), unique=True)
        group: Mapped[str | None] = mapped_column("select")
        given: Mapped[int | None]
        place: Mapped[int | None]
        count: Mapped[int | None]
        __table_args__ = (*Odd.rules(), {"schema": "Other Schema"})

    class Same(Odd):
        __tablename__ = 'Mixed "Case"'
        label: Mapped[str] = mapped_column(unique=True)

    class LabelKey(Key):
        label: str = omitted()

    class Data(Payload):
        label: str = omitted()

    class OrderData(Data):
        position: int = omitted()
        group: str | None = omitted()
        given: int | None = omitted()
        place: int | None = omitted()
        count: int | None = omitted()

    entities = [
        crud_entity(name=name, model=model, create=data, update=data, target=LabelKey)
        for name, model, data in (("order", Order, OrderData), ("same", Same, Data))
    ]
    await desk.sql('DROP SCHEMA IF EXISTS "Other Schema" CASCADE', 'CREATE SCHEMA "Other Schema"')
    await desk.open(*entities)
    numbers = {"position": 1, "given": 2, "place": 3, "count": 4}
    for events in (
        await desk.together(
            create("order", label="a", group="x", **numbers),
            create("order", label="b", **numbers),
            create("same", label="a"),
        ),
        await desk.together(
            update("order", {"label": "a"}, group="y", count=9),
            update("order", {"label": "b"}, position=5),
            update("same", {"label": "a"}, label="c"),
        ),
        await desk.together(*(delete("order", label=label) for label in "ab")),
    ):
        assert not any("." in type_ for type_ in types(events)), events
    found = await desk.rows('SELECT label FROM "Mixed ""Case"""')
    assert found == [{"label": "c"}]
    assert events[0]["data"] | {"group": "y", "count": 9} == events[0]["data"]
    assert errors(*await desk.together(delete("order", label="a"))) == ("not_found", "/target")


class Plain(Odd):
    __tablename__ = "plain"
    name: Mapped[str] = mapped_column(unique=True)
    loose: Mapped[str | None]
    twice: Mapped[int | None] = mapped_column(Integer, Computed("length(name)", persisted=True))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    ignore_case = frozenset({"loose"})


class LooseKey(Key):
    loose: str = omitted()


class WrongKey(Key):
    nothing: str = omitted()


class Computing(Payload):
    twice: int


class Unknown(Payload):
    nothing: int


class Ours(Payload):
    version: int


class Nothing(Payload):
    pass


def plain(**options: Any) -> Entity:
    given = {"name": "plain", "model": Plain, "create": Nothing, "update": Nothing}
    return crud_entity(**given | options)  # type: ignore[arg-type]


def wrong_reference() -> Entity:
    return plain(references=(Reference("parent_id", entity="plain", name="parent"),))


@pytest.mark.parametrize(
    ("entities", "says"),
    [
        (lambda: [plain(), plain(name="other")], "has the same table as 'other'"),
        (lambda: [plain(target=LooseKey)], r"'loose' that may be several rows'.*lower"),
        (lambda: [plain(target=WrongKey)], "key 'nothing' that is no column"),
        (lambda: [plain(create=Computing)], "'twice'.*which the database computes"),
        (lambda: [plain(update=Unknown)], "'nothing'.*which is no column"),
        (lambda: [plain(update=Ours)], "'version'.*which the worker sets itself"),
        (
            lambda: [plain(references=(Reference("parent_id", entity="gone", name="parent"),))],
            "refers to the entity 'gone', which there is not",
        ),
        (
            lambda: [plain(references=(Reference("none", entity="plain", name="none"),))],
            "reference in 'none', which is no column",
        ),
        (lambda: [wrong_reference()], "foreign key is not to the id of 'plain'"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_be_carried_out_rightly_is_told_at_the_start(
    entities: Callable[[], list[Entity]], says: str
) -> None:
    with pytest.raises(Misconfigured, match=says):
        Registry(entities())


def test_a_key_may_be_unique_by_an_index_or_without_regard_to_case() -> None:
    class Indexed(Odd):
        __tablename__ = "indexed"
        name: Mapped[str]
        loose: Mapped[str]
        ignore_case = frozenset({"loose"})
        __table_args__ = (
            *Odd.rules(),
            Index("by_name", "name", unique=True),
            Index("by_loose", func.lower(text("loose")), unique=True),
        )

    class BothKey(Key):
        name: str = omitted()
        loose: str = omitted()

    entity = plain(model=Indexed, target=BothKey)
    assert Registry([entity])["plain"] is entity


def test_inheritance_of_tables_is_told() -> None:
    class Animal(Odd):
        __tablename__ = "animals"
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    with pytest.raises(Misconfigured, match="inheritance of tables"):
        Registry([plain(model=Animal)])


def test_a_verb_of_ones_own_may_have_any_data() -> None:
    async def shine(session: Any, command: Any) -> Any: ...

    Registry([plain(verbs={"shine": Verb(shine, Unknown)})])
