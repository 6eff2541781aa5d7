"""Entities that nobody would think of, and commands about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from hypothesis import strategies as st
from pydantic import create_model
from sqlalchemy import (
    ARRAY,
    CHAR,
    REAL,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import CITEXT, JSONB
from sqlalchemy.orm import registry

from tests.rows.test_told_truly import Upper
from worker.core.models import NAMING, Row
from worker.core.payloads import Key, Payload, RowId, omitted
from worker.core.registry import Entity, Reference
from worker.processing.crud import crud_entity

WORDS = ["a", "A", "b", "é", "É", "a ", "abc", "abcd"]
NUMBERS = [0, 1, 2, 3, 99, 100, 2**15, 2**31, 2**70]
KINDS: Mapping[str, tuple[Any, Any, list[Any]]] = {
    "text": (Text, str, WORDS),
    "short": (lambda: String(3), str, WORDS),
    "char": (lambda: CHAR(3), str, WORDS),
    "citext": (CITEXT, str, WORDS),
    "upper": (lambda: Upper(4), str, WORDS),
    "int": (Integer, int, NUMBERS),
    "tiny": (SmallInteger, int, NUMBERS),
    "price": (lambda: Numeric(5, 2), float, [1.0, 1.005, 0.125, 999.999, 1e6]),
    "float": (Float, float, [0.1, 2.5, 1e300]),
    "real": (REAL, float, [0.1, 2.5, 1e300]),
    "flag": (Boolean, bool, [True, False]),
    "json": (JSONB, Any, [[], [1, 2], {"a": [None]}, "x", 1, True, 0.5]),
    "list": (lambda: ARRAY(Integer), list[int], [[], [1], [1, 2], [2**40]]),
}
"""A column's type, its payload's, and what is sent."""
KEYS = ("text", "short", "char", "citext", "upper", "int")
TEXTS = ("text", "short", "citext", "upper")
NAMES = ("name", "position", "given", "place", "count", "Mixed Case", "select", "größe")
ROW = "(to_jsonb(NEW) - '{id,created_on,updated_on}'::text[])"
TRIGGERS = ("lowers", "adds", "passes over", "objects", "writes down", "ids go down")

_numbers = count()


@dataclass(frozen=True)
class Field:
    """A column of one's own."""

    attribute: str
    column: str
    kind: str
    nullable: bool
    unique: bool
    ignores_case: bool
    default: str
    checked: bool


@dataclass(frozen=True)
class Shape:
    """What an entity is like."""

    fields: tuple[Field, ...]
    refers_to: str
    """Nothing, the entity before it, or itself."""
    rule: str
    is_reference: bool
    pair_is_unique: bool
    computed: bool
    triggers: frozenset[str]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    fields = []
    for number, name in enumerate(names):
        unique = number == 0 or draw(st.integers(0, 3)) == 0
        kind = draw(st.sampled_from(KEYS if unique else [*KINDS]))
        fields.append(
            Field(
                attribute=name if name.isidentifier() and name.isascii() else f"field_{number}",
                column=name,
                kind=kind,
                nullable=draw(st.booleans()),
                unique=unique,
                ignores_case=unique and kind in ("text", "short") and draw(st.booleans()),
                default=draw(st.sampled_from(("", "", "python", "server"))),
                checked=draw(st.integers(0, 3)) == 0,
            )
        )
    return Shape(
        fields=tuple(fields),
        refers_to=draw(st.sampled_from(("", "before", "before", "itself"))),
        rule=draw(st.sampled_from(("NO ACTION", "RESTRICT", "CASCADE", "SET NULL"))),
        is_reference=draw(st.integers(0, 3)) > 0,
        pair_is_unique=len(fields) > 1 and draw(st.integers(0, 2)) == 0,
        computed=draw(st.integers(0, 3)) == 0,
        triggers=draw(st.frozensets(st.sampled_from(TRIGGERS), max_size=2)),
    )


def entities_of(shapes_: tuple[Shape, ...]) -> list[Entity]:
    """The entities, in a metadata of their own."""

    class Base(Row):
        __abstract__ = True
        _sa_registry = registry(metadata=MetaData(naming_convention=NAMING))
        metadata = _sa_registry.metadata

    number = next(_numbers)
    entities: list[Entity] = []
    for place, shape in enumerate(shapes_):
        entities.append(_entity(Base, shape, f"e{place}", f"t{number}_{place}", entities))
    return entities


def _entity(base: type[Row], shape: Shape, name: str, table: str, others: list[Entity]) -> Entity:
    owner = table if shape.refers_to == "itself" else ""
    if shape.refers_to == "before" and others:
        owner = others[-1].table.name
    columns = {field.attribute: _column(field) for field in shape.fields}
    payload: dict[str, Any] = {}
    for field in shape.fields:
        type_ = KINDS[field.kind][1]
        payload[field.attribute] = (type_ | None if type_ is not Any else Any, omitted())
    if owner:
        foreign = ForeignKey(f"{owner}.id", ondelete=shape.rule)
        columns["owner_id"] = Column("owner_id", foreign, nullable=True)
        payload["owner_id"] = (RowId | None, omitted())
    rules = [*_rules(shape, table, columns)]
    if shape.computed:
        length = f'length("{shape.fields[0].column}"::text)'
        columns["computed"] = Column("computed", Integer, Computed(length, persisted=True))
    values: dict[str, Any] = {
        "__tablename__": table,
        "__table_args__": (*base.rules(), *rules),
        "ignore_case": frozenset(f.attribute for f in shape.fields if f.ignores_case),
    }
    keys: dict[str, Any] = {
        field.attribute: (KINDS[field.kind][1], omitted()) for field in shape.fields if field.unique
    }
    before = name if owner == table else f"e{int(name[1:]) - 1}"
    references = (Reference("owner_id", entity=before, name="owner"),)
    return crud_entity(
        name=name,
        model=cast(Any, type(base))(table, (base,), values | columns),
        create=create_model(f"{table}_create", __base__=Payload, **payload),
        update=create_model(f"{table}_update", __base__=Payload, **payload),
        target=create_model(f"{table}_key", __base__=Key, **keys),
        references=references if owner and shape.is_reference else (),
    )


def _column(field: Field) -> Column[Any]:
    make, _, values = KINDS[field.kind]
    options: dict[str, Any] = {}
    if field.default == "python" and not field.unique:
        options["default"] = values[0]
    if field.default == "server" and field.kind in ("int", "tiny", "price", "float"):
        options["server_default"] = "3"
    column: Column[Any] = Column(
        field.column,
        make(),
        nullable=field.nullable,
        unique=field.unique and not field.ignores_case,
        **options,
    )
    return column


def _rules(shape: Shape, table: str, columns: dict[str, Column[Any]]) -> Iterator[Any]:
    for number, field in enumerate(shape.fields):
        column = columns[field.attribute]
        if field.ignores_case:
            yield Index(f"{table}_lower_{number}", func.lower(column), unique=True)
        if field.checked and field.kind in ("int", "tiny"):
            yield CheckConstraint(column < 100, name=f"small_{number}")
        if field.checked and field.kind in TEXTS:
            yield CheckConstraint(column != "abc", name=f"no_abc_{number}")
    if shape.pair_is_unique and not any(field.kind == "json" for field in shape.fields[-2:]):
        yield UniqueConstraint(*(columns[field.attribute] for field in shape.fields[-2:]))


def triggers_of(shape: Shape, table: str) -> Iterator[str]:
    """What somebody has added to the table."""
    texts = [f for f in shape.fields if f.kind in TEXTS and f.kind != "upper"]
    first = next((f'NEW."{f.column}"' for f in texts), None)
    # A key may be rewritten if to do so twice makes no difference: as it is looked for, it is not.
    plain = [f for f in shape.fields if f.kind in ("int", "tiny") and not f.unique]
    number = next((f'NEW."{f.column}"' for f in plain), None)
    does = {
        "lowers": first and f"{first} := lower({first});",
        "adds": number and f"{number} := {number} + 1;",
        "passes over": first
        and not shape.refers_to
        and f"IF {first} = 'b' THEN RETURN NULL; END IF;",
        "objects": first and f"IF {first} = 'é' THEN RAISE EXCEPTION 'no'; END IF;",
        "writes down": f"INSERT INTO written VALUES ('{table} ' || TG_OP || {ROW}::text);"
        if not shape.refers_to
        else None,
    }
    for place, (name, body) in enumerate(does.items()):
        if name not in shape.triggers or not body:
            continue
        function = f"{table}_{place}"
        yield (
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {body} RETURN NEW; END $$"
        )
        yield (
            f"CREATE TRIGGER {function} BEFORE INSERT OR UPDATE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {function}()"
        )
    if "ids go down" in shape.triggers:
        yield (
            f"ALTER SEQUENCE {table}_id_seq INCREMENT -1 MINVALUE 1 MAXVALUE 9000"
            " START 9000 RESTART 9000"
        )


Command = dict[str, Any]


@st.composite
def commands(draw: st.DrawFn, shapes_: tuple[Shape, ...]) -> Command:
    """One command; an id is the place of the row among those that were made."""
    place = draw(st.integers(0, len(shapes_) - 1))
    shape = shapes_[place]
    verb = draw(st.sampled_from(("create", "create", "update", "update", "delete")))
    command: Command = {"type": f"e{place}.{verb}"}
    if verb != "create":
        unique = [field for field in shape.fields if field.unique]
        key = draw(st.sampled_from([None, *unique]))
        if key is None:
            command["target"] = {"id": draw(st.integers(0, 3))}
        else:
            command["target"] = {key.attribute: draw(st.sampled_from(KINDS[key.kind][2]))}
        if draw(st.integers(0, 7)) == 0:
            command["expected_version"] = draw(st.integers(1, 2))
    if verb != "delete":
        data = {}
        for field in shape.fields:
            if draw(st.integers(0, 3)) or (verb == "create" and not field.nullable):
                none = [None] if field.nullable or draw(st.integers(0, 9)) == 0 else []
                data[field.attribute] = draw(st.sampled_from([*KINDS[field.kind][2], *none]))
        if shape.refers_to and (shape.refers_to == "itself" or place) and draw(st.booleans()):
            data["owner_id"] = draw(st.one_of(st.none(), st.integers(0, 3)))
        command["data"] = data
    return command


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[Shape, ...], list[list[Command]]]:
    """Entities, and groups of commands about them."""
    shapes_ = tuple(draw(st.lists(shapes(), min_size=1, max_size=3)))
    groups = draw(
        st.lists(st.lists(commands(shapes_), min_size=1, max_size=8), min_size=1, max_size=4)
    )
    return shapes_, groups
