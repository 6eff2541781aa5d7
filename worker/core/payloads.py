"""What the `data` and `target` of a command are: strict models, and types for their fields."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Self

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

from worker.core.json_values import readable
from worker.core.messages import Target
from worker.core.text import CONTROL, UNSTORABLE

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
    return Field(default_factory=_nothing)


def _nothing() -> None:
    return None


class Payload(BaseModel):
    """Base of every entity's create and update model: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = readable(handler(source), handler.resolve_ref_schema)
        return schema


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


def values_of(data: Payload) -> dict[str, Any]:
    """The values of a new row: those that were given, and the payload's defaults of the others.

    What is `omitted()` is the database's, or the column's default's, to fill in.
    """
    values = dict(vars(data))  # `dict(model)` would look for its `keys` first, the slow way
    for name in _omittable(type(data)) - data.model_fields_set:
        del values[name]
    return values


@cache
def _omittable(model: type[Payload]) -> frozenset[str]:
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if field.default_factory is _nothing)
