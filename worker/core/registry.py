"""What the service can do: its entities, their verbs, their payloads.

Everything that depends on the entities (queue bindings, schemas, help, metric labels) derives from
here. An entity is declared once, in its own file; the registry is built at start from the modules
that `WORKER_ENTITIES` names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any

from sqlalchemy import JSON, Column, Index, Table, UniqueConstraint, inspect
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import ColumnCollectionConstraint, sort_tables_and_constraints

from worker.core.entity_rules import check
from worker.core.errors import Misconfigured, Refusal
from worker.core.messages import Command, Event, Target
from worker.core.models import Row
from worker.core.payloads import Key, Payload
from worker.core.text import MAX_SHORT_STRING, is_event_type
from worker.core.violations import Violation

Handler = Callable[[Any, Command], Awaitable[Event]]
"""`async def approve(session, command) -> Event`: touches nothing but its session.

A batched handler gets the transaction's `UnitOfWork` in place of the session; see `crud.py`.
"""


QUERIES = ("get", "list")
"""What can be asked of every entity, unless it has a verb of its own with that name."""


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
    """Whether it shares SQL statements within a group; then `handle` gets the `UnitOfWork`."""


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
    explain: Callable[[Entity, Command, Violation], Refusal | None] | None = None
    """Turns the violation of a constraint into the refusal that it means."""
    deletable: Callable[[AsyncSession, Any], Awaitable[None]] | None = None
    """Asked before a row is deleted, with its columns as attributes; raises a `Refusal` where it
    must stay. A row to which others refer stays without being asked."""

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The fields that can stand in a target."""
        return tuple(self.target.model_fields)

    @cached_property
    def table(self) -> Table:
        """Where its rows are."""
        table = self.model.__table__
        assert isinstance(table, Table)
        return table

    @cached_property
    def fields(self) -> dict[str, Column[Any]]:
        """The row's columns by their attributes' names, in the order in which events show them."""
        names = {each.columns[0]: each.key for each in inspect(self.model).column_attrs}
        return {names[column]: column for column in self.table.columns if column in names}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(self.fields)

    @cached_property
    def defaults(self) -> dict[str, Callable[[], Any]]:
        """What makes the value of a column that a create does not give."""
        return _made_here(self.fields, "default")

    @cached_property
    def update_defaults(self) -> dict[str, Callable[[], Any]]:
        """What makes the value of a column that changes with every update."""
        return _made_here(self.fields, "onupdate")

    @cached_property
    def documents(self) -> frozenset[str]:
        """The fields that hold JSON."""
        fields = self.fields.items()
        return frozenset(name for name, column in fields if isinstance(column.type, JSON))

    @cached_property
    def constraints(self) -> tuple[ColumnCollectionConstraint | Index, ...]:
        """The rules of its table that are about columns, unique indexes among them."""
        rules = (*self.table.constraints, *self.table.indexes)
        return tuple(each for each in rules if isinstance(each, ColumnCollectionConstraint | Index))

    @cached_property
    def contested(self) -> frozenset[str]:
        """Columns of constraints on several rows that are more than one key's: whether these let an
        update pass depends on which of two is written first."""
        names = {column: name for name, column in self.fields.items()}
        wide = [
            {names[each] for each in rule.columns if each in names}
            for rule in self.constraints
            if isinstance(rule, UniqueConstraint | ExcludeConstraint)
            or (isinstance(rule, Index) and rule.unique)
        ]
        keys = set(self.keys)
        return frozenset().union(*(each for each in wide if len(each) > 1 or not each <= keys))

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


def _made_here(fields: Mapping[str, Column[Any]], kind: str) -> dict[str, Callable[[], Any]]:
    """The columns' defaults that Python makes; those in SQL are SQLAlchemy's and the server's."""
    made: dict[str, Callable[[], Any]] = {}
    for name, column in fields.items():
        default = getattr(column, kind)
        if default is not None and default.is_callable:
            made[name] = partial(default.arg, None)
        elif default is not None and default.is_scalar:
            made[name] = partial(_same, default.arg)
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
        for entity in self:
            check(entity, self)

    def __iter__(self) -> Iterator[Entity]:
        return iter(self._entities.values())

    def __getitem__(self, name: str) -> Entity:
        return self._entities[name]

    def find(self, type_: str) -> tuple[Entity, str] | None:
        """The entity and verb of a type such as `user.create`, or `None`."""
        name, _, verb = type_.partition(".")
        entity = self._entities.get(name)
        return (entity, verb) if entity and verb in entity.verbs else None

    def find_query(self, type_: str) -> tuple[Entity, str] | None:
        """The entity and verb of a query such as `user.list`, or `None`."""
        name, _, verb = type_.partition(".")
        entity = self._entities.get(name)
        is_query = entity and verb in QUERIES and verb not in entity.verbs
        return (entity, verb) if entity and is_query else None

    def of_row(self, row: Row) -> Entity:
        """The entity that a row belongs to."""
        return next(entity for entity in self if isinstance(row, entity.model))

    @cached_property
    def by_dependency(self) -> list[str]:
        """The entities' names; what refers to another comes after it, but within a circle."""
        names = {entity.table: entity.name for entity in self}
        tables = sort_tables_and_constraints(names)  # type: ignore[no-untyped-call]
        return [names[table] for table, _ in tables if table is not None]

    def dependents(self, entity: Entity) -> list[tuple[Entity, Reference]]:
        """What refers to the entity's rows in a way that the database does not resolve by itself.

        A foreign key with ON DELETE CASCADE or SET NULL is no reason to keep a row.
        """
        return self._dependents[entity.name]

    @cached_property
    def _dependents(self) -> dict[str, list[tuple[Entity, Reference]]]:
        found: dict[str, list[tuple[Entity, Reference]]] = {name: [] for name in self._entities}
        for entity in self:
            for reference in entity.references:
                rules = {key.ondelete for key in entity.fields[reference.field].foreign_keys}
                if rules <= {None, "NO ACTION", "RESTRICT"}:
                    found[reference.entity].append((entity, reference))
        return found

    def disturbed_by(self, entity: Entity) -> frozenset[str]:
        """The entities whose rows the database itself may change where rows of this one go.

        Where some of a table go, or are set to null, so may others in turn.
        """
        return self._disturbed_by[entity.name]

    @cached_property
    def _disturbed_by(self) -> dict[str, frozenset[str]]:
        followers: dict[Table, set[Table]] = defaultdict(set)
        ours = {entity.table for entity in self}
        for table in ours.union(*(each.metadata.tables.values() for each in ours)):
            for key in table.foreign_key_constraints:
                if key.ondelete not in (None, "NO ACTION", "RESTRICT"):
                    followers[key.referred_table].add(table)
        names = {entity.table: entity.name for entity in self}
        return {
            entity.name: frozenset(
                names[table] for table in _all_from(entity.table, followers) if table in names
            )
            for entity in self
        }

    @property
    def types(self) -> list[str]:
        """All command types, such as `user.create`."""
        return [f"{entity.name}.{verb}" for entity in self for verb in entity.verbs]

    @property
    def query_types(self) -> list[str]:
        """All types of queries, such as `user.list`."""
        types = [f"{entity.name}.{verb}" for entity in self for verb in QUERIES]
        return [type_ for type_ in types if self.find_query(type_)]


def _all_from(table: Table, followers: Mapping[Table, set[Table]]) -> set[Table]:
    """All that follow from a table, directly or not; itself only if it is one of them."""
    found: set[Table] = set()
    to_do = [table]
    while to_do:
        new = followers.get(to_do.pop(), set()) - found
        found |= new
        to_do += new
    return found


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
