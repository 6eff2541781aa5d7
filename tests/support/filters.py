"""Filters made at random, and what they mean, evaluated row by row without any SQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from hypothesis import strategies as st

Rows = dict[str, list[dict[str, Any]]]
Where = dict[str, Any]

TEXTS = ("ann", "Ann", "a%n", "a_n", "a/n", "a\\n", "'; DROP TABLE users; --", "%", "_", "x" * 150)
EMAILS = ("ann@example.com", "ANN2@Example.com", "a%@b.de", "a_@b.de", "z@b.de")
NUMBERS = (0.0, -1.5, 4.5, 1e300, float(2**53))
TIMES = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001Z", "2026-06-01T12:00:00+02:00")

FIELDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "user": {
        "id": (*range(1, 14), 2**53 + 1, 2**63 - 1, -5),
        "username": (*TEXTS, "a", "n", "", "an" * 100),
        "email": (*EMAILS, "ann@EXAMPLE.com", "@b.de", "%", ""),
        "rating": (*NUMBERS, 4, 5, 0.1),
        "created_on": TIMES,
    },
    "order": {
        "id": tuple(range(1, 16)),
        "user_id": tuple(range(1, 14)),
        "is_completed": (True, False),
    },
}
RELATIONS = {"user": ("orders", "order", True), "order": ("user", "user", False)}
TEXT_FIELDS = frozenset({"username", "email"})
UNORDERED = TEXT_FIELDS | {"is_completed"}
"""Of texts the order is the collation's, which Python does not know."""


@cache
def conditions(entity: str, depth: int = 3) -> st.SearchStrategy[Where]:
    """A `where` of an entity."""
    members = [_compared(entity, name) for name in FIELDS[entity]]
    if depth:
        inner = conditions(entity, depth - 1)
        members += [
            st.lists(inner, max_size=3).map(lambda parts: {"or": parts}),
            st.lists(inner, max_size=3).map(lambda parts: {"and": parts}),
            inner.map(lambda part: {"not": part}),
            _related(entity, depth),
        ]
    return st.lists(st.one_of(members), max_size=3).map(_merged)


def _merged(parts: list[Where]) -> Where:
    return {name: value for part in parts for name, value in part.items()}


def _related(entity: str, depth: int) -> st.SearchStrategy[Where]:
    name, other, many = RELATIONS[entity]
    inner = conditions(other, depth - 1)
    if not many:
        return inner.map(lambda part: {name: part})
    words = st.sampled_from(["some", "none", "every"])
    return st.dictionaries(words, inner, min_size=1, max_size=2).map(lambda part: {name: part})


def _compared(entity: str, name: str) -> st.SearchStrategy[Where]:
    value = st.sampled_from(FIELDS[entity][name])
    values = st.lists(value, max_size=4)
    operators = {
        "eq": value,
        "ne": value,
        "in": values,
        "not_in": values,
        "is_null": st.booleans(),
    }
    if name not in UNORDERED:
        operators |= dict.fromkeys(("lt", "lte", "gt", "gte"), value)
    if name in TEXT_FIELDS:
        operators |= dict.fromkeys(("contains", "starts_with", "ends_with"), value)
    one = st.one_of([st.fixed_dictionaries({op: each}) for op, each in operators.items()])
    several = st.lists(one, min_size=1, max_size=2).map(_merged)
    return st.one_of(value, several).map(lambda condition: {name: condition})


def matches(rows: Rows, entity: str, row: dict[str, Any], where: Where) -> bool:
    """Whether the row is one that the filter asks for."""
    return all(_holds(rows, entity, row, name, value) for name, value in where.items())


def _holds(rows: Rows, entity: str, row: dict[str, Any], name: str, value: Any) -> bool:
    relation, other, many = RELATIONS[entity]
    match name:
        case "and":
            return all(matches(rows, entity, row, part) for part in value)
        case "or":
            return any(matches(rows, entity, row, part) for part in value)
        case "not":
            return not matches(rows, entity, row, value)
    if name == relation:
        if not many:
            (owner,) = [it for it in rows[other] if it["id"] == row["user_id"]]
            return matches(rows, other, owner, value)
        theirs = [it for it in rows[other] if it["user_id"] == row["id"]]
        quantifiers: dict[str, Callable[[list[bool]], bool]] = {
            "some": any,
            "every": all,
            "none": lambda found: not any(found),
        }
        return all(
            quantifiers[word]([matches(rows, other, it, part) for it in theirs])
            for word, part in value.items()
        )
    operations = value if isinstance(value, dict) else {"eq": value}
    return all(_compares(name, row[name], op, it) for op, it in operations.items())


def _compares(name: str, have: Any, operator: str, operand: Any) -> bool:  # noqa: PLR0911
    if operator == "is_null":
        return (have is None) is operand
    if operator in ("in", "not_in"):
        found = any(_compares(name, have, "eq", each) for each in operand)
        return found is (operator == "in")
    if have is None:
        return operator == "ne"
    if name == "email":
        have, operand = have.lower(), operand.lower()
    if isinstance(have, datetime):
        operand = datetime.fromisoformat(operand)
    match operator:
        case "contains":
            return operand in have
        case "starts_with":
            return bool(have.startswith(operand))
        case "ends_with":
            return bool(have.endswith(operand))
    compared: dict[str, bool] = {"eq": have == operand, "ne": have != operand}
    if operator in compared:
        return compared[operator]
    return bool(
        {
            "lt": have < operand,
            "lte": have <= operand,
            "gt": have > operand,
            "gte": have >= operand,
        }[operator]
    )
