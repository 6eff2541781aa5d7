"""What the service can do: its entities, their verbs, their payloads.

Everything that depends on the entities (queue bindings, schemas, help, metric labels) derives from
here. An entity is declared once, in its own file; the registry is built at start from the modules
that `WORKER_ENTITIES` names.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Annotated, Any, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import sort_tables

from worker.core.errors import Misconfigured, Refusal
from worker.core.messages import Command, Event, Target
from worker.core.models import Row
from worker.core.text import CONTROL, MAX_SHORT_STRING, UNSTORABLE, is_event_type

Handler = Callable[[Any, Command], Awaitable[Event]]
"""`async def approve(session, command) -> Event`: touches nothing but its session.

A batched handler gets the transaction's `Work` in place of the session; see `crud.py`.
"""


_CONTROL = re.compile(f"[{CONTROL}]")
_WHITE_SPACE = (  # what `str.strip` takes away, but for the control characters among it
    r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
)


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    if value != value.strip():
        raise ValueError("must not begin or end with white space")
    return value


class _OneLine:
    """Checks text, and says in its JSON Schema what it checks."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(_printable, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        wrong = f"[{CONTROL}{UNSTORABLE}]|^[{_WHITE_SPACE}]|[{_WHITE_SPACE}]$"
        return handler(schema) | {"not": {"type": "string", "pattern": wrong}}


RowId = Annotated[int, Field(ge=1, le=2**63 - 1)]
"""A row's identity: a PostgreSQL bigint from 1."""

OneLine = _OneLine()
"""For text with no control characters and no white space around it."""


def omitted() -> Any:
    """Default of a field that may be left out but, when given, must not be null."""
    return Field(default_factory=lambda: None)


class Payload(BaseModel):
    """Base of every entity's create and update model: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Key(Payload):
    """Names one row by exactly one of its unique fields; an entity adds its own fields."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    id: RowId = omitted()

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"must hold exactly one of: {names}")
        return self

    def to_target(self) -> Target:
        """The field that is given, and its value."""
        (name,) = self.model_fields_set
        return Target(name, getattr(self, name))


def _ordering_key(entity: str, target: Target) -> str:
    # Lower case throughout: a key that two rows share costs nothing but a little concurrency.
    return f"{entity}:{target.field}={str(target.value).lower()}"


@dataclass(frozen=True)
class Reference:
    """A field that holds another row's id, or in its place names that row by a unique key.

    `Reference("user_id", entity="user", name="user")` lets a payload say `{"user_id": 42}` or
    `{"user": {"username": "ann"}}`.
    """

    field: str
    entity: str
    name: str


@dataclass(frozen=True)
class Verb:
    """Something that can be done with an entity."""

    handle: Handler
    payload: type[Payload] | None = None
    """Model of the command's `data`; `None` where the verb takes none."""
    targeted: bool = True
    """Whether the command must name an existing row."""
    batched: bool = False
    """Whether it shares SQL statements within a group; then `handle` gets the `Work`."""


@dataclass(frozen=True, eq=False)
class Entity:
    """One kind of row and what can be done with it."""

    name: str
    model: type[Row]
    verbs: Mapping[str, Verb]
    target: type[Key] = Key
    """Model of the command's `target`: `id` and the other unique fields."""
    natural_key: str | None = None
    """The field of a create's payload that orders it with later commands about the same row."""
    references: tuple[Reference, ...] = ()
    prepare: Callable[[Any, Sequence[Command]], Awaitable[None]] | None = None
    """Finds in one go the rows that a group of commands needs."""
    explain: Callable[[Entity, Command, str], Refusal | None] | None = None
    """Turns the name of a violated constraint into the refusal that it means."""
    deletable: Callable[[AsyncSession, Any], Awaitable[None]] | None = None
    """Asked before a row is deleted, with its columns as attributes; raises a `Refusal` where it
    must stay. A row to which others refer stays without being asked."""

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The fields that can stand in a target."""
        return tuple(self.target.model_fields)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The row's columns, in the order in which events show them."""
        return tuple(self.model.__table__.columns.keys())

    @cached_property
    def defaults(self) -> dict[str, Callable[[], Any]]:
        """What makes the value of a column that a create does not give."""
        return _made_here(self.model, "default")

    @cached_property
    def update_defaults(self) -> dict[str, Callable[[], Any]]:
        """What makes the value of a column that changes with every update."""
        return _made_here(self.model, "onupdate")

    def normal(self, field: str, value: Any) -> Any:
        """The form in which two values of a unique field are compared."""
        if field not in self.model.ignore_case:
            return value
        # Letters beyond ASCII fold by the database's rules, which it alone knows.
        return value.lower() if value.isascii() else value

    def ordering_key(self, field: str, value: Any) -> str:
        """The default key of a command about the row with this value, e.g. `user:id=42`."""
        return _ordering_key(self.name, Target(field, value))

    def key_of_new(self, data: Any) -> str | None:
        """The default key of a create: its natural key, else that of the row it belongs to."""
        # A verb of one's own may have a payload without these.
        if self.natural_key is not None:
            value = getattr(data, self.natural_key, None)
            if value is not None:
                return self.ordering_key(self.natural_key, value)
        for reference in self.references:
            named = getattr(data, reference.name, None)
            if named is not None:
                return _ordering_key(reference.entity, named.to_target())
            owner = getattr(data, reference.field, None)
            if owner is not None:
                return _ordering_key(reference.entity, Target("id", owner))
        return None

    def data_of(self, row: Row) -> dict[str, Any]:
        """The row as an event shows it."""
        return {name: getattr(row, name) for name in self.columns}


def _made_here(model: type[Row], kind: str) -> dict[str, Callable[[], Any]]:
    """The columns' defaults that Python makes; those of the server come back from the INSERT."""
    made: dict[str, Callable[[], Any]] = {}
    for column in model.__table__.columns:
        default = getattr(column, kind)
        if default is None:
            continue
        if default.is_callable:
            made[column.key] = partial(default.arg, None)
        elif default.is_scalar:
            made[column.key] = partial(_same, default.arg)
        else:
            raise Misconfigured(
                f"{model.__name__}.{column.key}: its {kind} is SQL, which create and update do not "
                "send; use server_default, or a trigger"
            )
    return made


def _same(value: Any) -> Any:
    return value


class Registry:
    """The entities of this service, by name."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self._entities = {entity.name: entity for entity in entities}
        if len(self._entities) != len(entities):
            names = [entity.name for entity in entities]
            twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
            raise Misconfigured(f"WORKER_ENTITIES declares an entity twice: {twice}")
        for type_ in self.types:
            if type_.count(".") != 1 or not is_event_type(f"{type_}.rejected"):
                raise Misconfigured(
                    f"WORKER_ENTITIES: {type_[:100]!r} cannot be a command type. Names of entities "
                    "and verbs are single words of printable characters, and short: with "
                    f"`.rejected` behind it a type has at most {MAX_SHORT_STRING} bytes"
                )

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._entities.values())

    def __getitem__(self, name: str) -> Entity:
        return self._entities[name]

    def find(self, type_: str) -> tuple[Entity, str] | None:
        """The entity and verb of a type such as `user.create`, or `None`."""
        name, _, verb = type_.partition(".")
        entity = self._entities.get(name)
        return (entity, verb) if entity and verb in entity.verbs else None

    def of_row(self, row: Row) -> Entity:
        """The entity that a row belongs to."""
        return next(entity for entity in self if isinstance(row, entity.model))

    @cached_property
    def by_dependency(self) -> list[str]:
        """The entities' names; what refers to another comes after it."""
        names = {entity.model.__tablename__: entity.name for entity in self}
        tables = [cast(Table, entity.model.__table__) for entity in self]
        return [names[table.name] for table in sort_tables(tables)]

    def dependents(self, entity: Entity) -> list[tuple[Entity, Reference]]:
        """What refers to the entity's rows in a way that the database does not resolve by itself.

        A foreign key with ON DELETE CASCADE or SET NULL is no reason to keep a row.
        """
        return self._dependents[entity.name]

    @cached_property
    def _dependents(self) -> dict[str, list[tuple[Entity, Reference]]]:
        found: dict[str, list[tuple[Entity, Reference]]] = {name: [] for name in self._entities}
        for entity in self:
            columns = entity.model.__table__.columns
            for reference in entity.references:
                rules = {key.ondelete for key in columns[reference.field].foreign_keys}
                if reference.entity in found and rules <= {None, "NO ACTION", "RESTRICT"}:
                    found[reference.entity].append((entity, reference))
        return found

    @property
    def types(self) -> list[str]:
        """All command types, such as `user.create`."""
        return [f"{entity.name}.{verb}" for entity in self for verb in entity.verbs]


def load_registry(modules: str) -> Registry:
    """Import the comma-separated modules and collect the `ENTITIES` that each declares.

    Raises `Misconfigured` when a module cannot be imported or declares none.
    """
    entities: list[Entity] = []
    for name in filter(None, (part.strip() for part in modules.split(","))):
        entities.extend(_declared_by(name))
    if not entities:
        raise Misconfigured("WORKER_ENTITIES names no module; the default is worker.entities")
    return Registry(entities)


def _declared_by(name: str) -> Sequence[Entity]:
    """The `ENTITIES` of a module; what its own code raises is passed on, with a note."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise Misconfigured(
            f"WORKER_ENTITIES: {name!r} is no name of a Python module, such as shop.entities"
        )
    try:
        module = import_module(name)
    except (ImportError, SyntaxError) as error:
        raise Misconfigured(
            f"WORKER_ENTITIES: cannot import {name!r}: {error}. "
            "Install its package, or name the folder that holds it in PYTHONPATH"
        ) from error
    except Exception as error:
        error.add_note(f"while {name!r} was imported, which WORKER_ENTITIES names")
        raise
    declared = getattr(module, "ENTITIES", None)
    if not isinstance(declared, tuple | list) or not declared:
        raise Misconfigured(
            f"WORKER_ENTITIES: module {name!r} has no ENTITIES; add `ENTITIES = (…,)` to it"
        )
    if others := [each for each in declared if not isinstance(each, Entity)]:
        raise Misconfigured(
            f"WORKER_ENTITIES: what module {name!r} has in its ENTITIES must be entities, as "
            f"`crud_entity(…)` makes them, and {others[0]!r} is none"
        )
    return declared
