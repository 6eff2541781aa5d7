"""`where` from JSON to conditions: each name, operator and value checked, each fault pointed at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, cast

from pydantic import ValidationError

from worker.codec.strict_json import Path
from worker.codec.validation import in_words, pointer_to
from worker.core.queries import (
    EVERYTHING,
    And,
    Compare,
    Condition,
    Not,
    Or,
    Quantifier,
    Related,
)
from worker.core.query_schema import TEXT, Field, QuerySchema, QuerySchemas, Relation

MAX_DEPTH = 8
MAX_CONDITIONS = 100
MAX_VALUES = 1_000
"""In one `where`."""
QUANTIFIERS = ("some", "none", "every")

Report = Callable[[str, str, str], None]
"""Takes the pointer, the code and the words of a fault."""


class TooMuch(Exception):
    """The filter is larger than is read; told once, and nothing more of it is looked at."""


class WhereParser:
    """Reads one `where`; what is wrong with it goes to `report`."""

    def __init__(self, schemas: QuerySchemas, report: Report) -> None:
        self._schemas = schemas
        self._report = report
        self._conditions = 0
        self._values = 0

    def parse(self, schema: QuerySchema, where: Any, path: Path) -> Condition:
        """The conditions; of what is wrong none is left."""
        if where == {"all": True}:
            return EVERYTHING
        try:
            return self._all_of(schema, where, path, 1)
        except TooMuch as error:
            self._report(pointer_to(path), "too_large", str(error))
            return EVERYTHING

    def _all_of(self, schema: QuerySchema, where: Any, path: Path, depth: int) -> Condition:
        """Members side by side: all of them hold."""
        if depth > MAX_DEPTH:
            raise TooMuch(f"is nested more than {MAX_DEPTH} deep")
        if not isinstance(where, dict):
            self._fault(path, "type", "must be an object of conditions")
            return EVERYTHING
        parts: list[Condition] = []
        for name, value in where.items():
            parts += self._member(schema, name, value, (*path, name), depth)
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _member(
        self, schema: QuerySchema, name: str, value: Any, path: Path, depth: int
    ) -> Iterable[Condition]:
        if name in ("and", "or"):
            if not isinstance(value, list):
                self._fault(path, "type", "must be a list of objects of conditions")
                return ()
            steps = enumerate(value)
            parts = tuple(self._all_of(schema, it, (*path, n), depth + 1) for n, it in steps)
            return (And(parts) if name == "and" else Or(parts),)
        if name == "not":
            return (Not(self._all_of(schema, value, path, depth + 1)),)
        if name in schema.relations:
            self._count_condition()
            return self._related(schema.relations[name], value, path, depth)
        if name in schema.fields:
            return self._compared(schema.fields[name], value, path)
        known = [*schema.fields, *schema.relations, "and", "or", "not"]
        self._fault(path, "unknown", unknown(name, known))
        return ()

    def _related(
        self, relation: Relation, value: Any, path: Path, depth: int
    ) -> Iterable[Condition]:
        schema = self._schemas[relation.entity]
        if not relation.many:
            return (Related(relation.name, "one", self._all_of(schema, value, path, depth + 1)),)
        if not isinstance(value, dict) or not value or not value.keys() <= set(QUANTIFIERS):
            self._fault(
                path,
                "type",
                f"leads to many rows: say of which, as in "
                f'{{"{relation.name}": {{"some": {{…}}}}}}; there are: {", ".join(QUANTIFIERS)}',
            )
            return ()
        return [
            Related(
                relation.name,
                cast(Quantifier, name),
                self._all_of(schema, part, (*path, name), depth + 1),
            )
            for name, part in value.items()
        ]

    def _compared(self, field: Field, value: Any, path: Path) -> list[Condition]:
        if not isinstance(value, dict):
            if field.is_compound:
                self._fault(path, "type", f"takes operators only: {_listed(field.operators)}")
                return []
            if isinstance(value, list):
                self._fault(path, "type", 'is a list; say {"in": […]}')
                return []
            value = {"eq": value}
            return self._operation(field, "eq", value["eq"], path)
        if not value:
            self._fault(path, "empty", f"names no operator; there are: {_listed(field.operators)}")
        found: list[Condition] = []
        for name, operand in value.items():
            found += self._operation(field, name, operand, (*path, name))
        return found

    def _operation(self, field: Field, name: str, operand: Any, path: Path) -> list[Condition]:
        self._count_condition()
        if name not in field.operators:
            self._fault(path, "unknown_operator", unknown(name, sorted(field.operators)))
            return []
        return [Compare(field.name, name, self._operand(field, name, operand, path))]

    def _operand(self, field: Field, name: str, operand: Any, path: Path) -> Any:
        if name == "is_null":
            if not isinstance(operand, bool):
                self._fault(path, "type", "must be true or false")
            return operand
        if name in ("in", "not_in"):
            if not isinstance(operand, list):
                self._fault(path, "type", "must be a list of values")
                return ()
            steps = enumerate(operand)
            return tuple(self._value(field, each, (*path, number)) for number, each in steps)
        if name in TEXT and not isinstance(operand, str):
            self._fault(path, "type", "must be text")
            return ""
        return self._value(field, operand, path)

    def _value(self, field: Field, value: Any, path: Path) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise TooMuch(f"holds more than {MAX_VALUES:,} values")
        if value is None:
            self._fault(path, "null", 'must not be null; say {"is_null": true}')
            return None
        try:
            return field.read(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            self._fault(path, str(first["type"]), in_words(first["msg"]))
        except ValueError as error:
            self._fault(path, "value", str(error))
        return None

    def _count_condition(self) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise TooMuch(f"holds more than {MAX_CONDITIONS} conditions")

    def _fault(self, path: Path, code: str, detail: str) -> None:
        self._report(pointer_to(path), code, detail)


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is none of these: what was meant, or all that there are."""
    names = list(known)
    close = get_close_matches(name[:100], names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"is not known here; {hint}there are: {', '.join(names)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
