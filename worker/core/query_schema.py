"""What queries may say of an entity: its fields with their types, its relations.

All of it derives from the mapped class, so an entity of one's own has it with no more code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, cast, get_args
from uuid import UUID

from pydantic import AwareDatetime, NaiveDatetime, TypeAdapter
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    DateTime,
    Integer,
    SmallInteger,
    Table,
    TypeDecorator,
    inspect,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from worker.core.queries import Operator
from worker.core.registry import Entity, Registry

_NULL: frozenset[Operator] = frozenset({"is_null"})
_EQUALITY: frozenset[Operator] = _NULL | {"eq", "ne", "in", "not_in"}
_ORDER: frozenset[Operator] = _EQUALITY | {"lt", "lte", "gt", "gte"}
TEXT: frozenset[Operator] = frozenset({"contains", "starts_with", "ends_with"})

_NUMBERS = (int, float, Decimal)
_ORDERED = (*_NUMBERS, datetime, date, time, timedelta, UUID, str)
_COMPOUND = (JSON, ARRAY)


@dataclass(frozen=True, eq=False)
class Field:
    """A column, as queries see it."""

    name: str
    column: Column[Any]
    python_type: type | None
    operators: frozenset[Operator]
    ignores_case: bool
    adapter: TypeAdapter[Any] | None
    """Reads and writes its values as JSON; `None` where they can only be asked to be null."""

    @property
    def is_compound(self) -> bool:
        """Whether its values are lists or objects, for which there is no shorthand."""
        return isinstance(self.column.type, _COMPOUND)

    @property
    def is_sortable(self) -> bool:
        """Whether rows can be ordered, and grouped, by it."""
        return self.adapter is not None and not self.is_compound

    @property
    def is_number(self) -> bool:
        """Whether there are a sum and an average of it."""
        return self.python_type in _NUMBERS

    @property
    def is_measured(self) -> bool:
        """Whether there are a least and a greatest of it."""
        return self.python_type in (*_NUMBERS, datetime, date, time, timedelta)

    def read(self, value: Any) -> Any:
        """The value of a JSON value; raises `ValueError` for one that the column cannot hold."""
        assert self.adapter is not None
        if self.python_type is int and type(value) is float and value.is_integer():
            value = int(value)  # JSON does not tell the two apart
        if self.python_type in (datetime, date) and isinstance(value, str) and "-" not in value:
            raise ValueError("must be a date as RFC 3339 has it")  # not seconds since 1970
        read = self.adapter.validate_json(json.dumps(value), strict=True)
        if self.python_type is float and type(value) is int and int(read) != value:
            raise ValueError("is a number that the field cannot hold exactly")
        if self.python_type is int and not -self._limit <= read < self._limit:
            raise ValueError("is out of the field's range")
        allowed = getattr(self.column.type, "enums", None)
        if isinstance(read, str) and allowed is not None and read not in allowed:
            raise ValueError(f"must be one of: {', '.join(allowed)}")
        return read

    def write(self, value: Any) -> Any:
        """The value as JSON has it, to be read again without loss."""
        assert self.adapter is not None
        return self.adapter.dump_python(value, mode="json")

    @property
    def _limit(self) -> int:
        match self.column.type:
            case SmallInteger():
                return 2**15
            case BigInteger():
                return 2**63
            case Integer():
                return 2**31
        return 2**63


@dataclass(frozen=True, eq=False)
class Relation:
    """A relationship to rows of an entity."""

    name: str
    entity: str
    many: bool


@dataclass(frozen=True, eq=False)
class QuerySchema:
    """What queries may say of one entity."""

    entity: Entity
    fields: Mapping[str, Field]
    relations: Mapping[str, Relation]
    keys: Mapping[str, Field]
    """The unique fields that a target may name, also those that queries know nothing of."""


class QuerySchemas:
    """The schema of each entity, made when it is first asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._made: dict[str, QuerySchema] = {}

    def __getitem__(self, name: str) -> QuerySchema:
        if name not in self._made:
            entity = self._registry[name]
            every = {
                name: _field(entity, name, column)
                for name, column in cast(Table, entity.model.__table__).columns.items()
            }
            self._made[name] = QuerySchema(
                entity,
                fields={it: each for it, each in every.items() if _is_queried(entity, it)},
                relations=self._relations(entity),
                keys={it: each for it, each in every.items() if it in entity.keys},
            )
        return self._made[name]

    def _relations(self, entity: Entity) -> dict[str, Relation]:
        names = {other.model: other.name for other in self._registry}
        return {
            it.key: Relation(it.key, names[it.mapper.class_], bool(it.uselist))
            for it in inspect(entity.model).relationships
            if it.mapper.class_ in names and _is_queried(entity, it.key)
        }


def _is_queried(entity: Entity, name: str) -> bool:
    # By its id a row is told from all others, whatever else is hidden.
    return name == "id" or name not in entity.model.not_queried


def _field(entity: Entity, name: str, column: Column[Any]) -> Field:
    python_type, annotation = _type_of(entity, name, column.type)
    operators = _operators(column.type, python_type)
    return Field(
        name=name,
        column=column,
        python_type=python_type,
        operators=operators,
        ignores_case=name in entity.model.ignore_case,
        adapter=None if operators == _NULL else TypeAdapter(annotation),
    )


def _type_of(entity: Entity, name: str, type_: TypeEngine[Any]) -> tuple[type | None, Any]:
    """The Python type of a column's values, and what pydantic is to read them as."""
    if isinstance(type_, TypeDecorator) and (annotation := _annotated(entity, name)) is not None:
        # A type of the entity's own: its commands tell what its values are.
        bare = get_args(annotation)[0]
        return (bare if isinstance(bare, type) else None), annotation
    if isinstance(type_, ARRAY):
        return list, list[_python_type(type_.item_type) or Any]  # type: ignore[misc]
    if isinstance(type_, JSON):
        return dict, Any
    python_type = _python_type(type_)
    if python_type is datetime:
        is_aware = isinstance(type_, DateTime) and type_.timezone
        return datetime, AwareDatetime if is_aware else NaiveDatetime
    return python_type, python_type


def _python_type(type_: TypeEngine[Any]) -> type | None:
    try:
        return type_.python_type
    except NotImplementedError:
        return None


def _annotated(entity: Entity, name: str) -> Any:
    for verb in entity.verbs.values():
        found = verb.payload.model_fields.get(name) if verb.payload is not None else None
        if found is not None:
            return Annotated[_not_null(found.annotation), "", *found.metadata]
    return None


def _not_null(annotation: Any) -> Any:
    others = [each for each in get_args(annotation) if each is not type(None)]
    return others[0] if len(others) == 1 and type(None) in get_args(annotation) else annotation


def _operators(type_: TypeEngine[Any], python_type: type | None) -> frozenset[Operator]:
    if isinstance(type_, _COMPOUND):
        # Of plain JSON PostgreSQL knows no equality.
        return _NULL | {"eq", "ne"} if isinstance(type_, JSONB | ARRAY) else _NULL
    if python_type is bool or isinstance(type_, EnumType):
        return _EQUALITY
    if python_type is str:
        return _ORDER | TEXT
    if python_type in _ORDERED:
        return _ORDER
    return _EQUALITY if python_type is not None and issubclass(python_type, Enum) else _NULL
