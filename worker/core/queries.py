"""What a query asks for, as small frozen values: the conditions of `where`, an order, a page.

The codec reads them from JSON, with every name and value checked; `processing/queries` turns them
into SQL.
"""

from __future__ import annotations

from typing import Any, Literal

from worker.core.messages import Target, value

Operator = Literal[
    "eq",
    "ne",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "not_in",
    "contains",
    "starts_with",
    "ends_with",
    "is_null",
]
Quantifier = Literal["one", "some", "none", "every"]
Function = Literal["avg", "max", "min", "sum"]


@value
class Compare:
    """A field compared with a value of its own type."""

    field: str
    operator: Operator
    operand: Any


@value
class And:
    """All of them hold; true of none."""

    parts: tuple[Condition, ...]


@value
class Or:
    """At least one of them holds; false of none."""

    parts: tuple[Condition, ...]


@value
class Not:
    """It does not hold; what is unknown for a null does not hold either."""

    part: Condition


@value
class Related:
    """What holds of the row at the other end of a relation, or of some, none or every such row."""

    relation: str
    quantifier: Quantifier
    part: Condition


Condition = Compare | And | Or | Not | Related

EVERYTHING = And(())


@value
class OrderBy:
    """One step of an order."""

    field: str
    descending: bool = False


@value
class Include:
    """A relation whose rows come along, and which of theirs."""

    relation: str
    includes: tuple[Include, ...] = ()


@value
class Aggregate:
    """What is computed of all rows that match, for each group of them."""

    count: bool
    functions: tuple[tuple[Function, str], ...]
    """Each function with its field."""
    group_by: tuple[str, ...] = ()


@value
class Get:
    """One row by a unique key."""

    target: Target
    fields: tuple[str, ...]
    includes: tuple[Include, ...] = ()


@value
class Page:
    """So many rows, or groups, that match, in an order, after a position in it."""

    where: Condition
    order: tuple[OrderBy, ...]
    limit: int
    fields: tuple[str, ...]
    includes: tuple[Include, ...]
    aggregate: Aggregate | None
    after: tuple[Any, ...] | None
    """The position: for each step of the order the value of the row that was last."""
    shape: bytes
    """What a cursor is made for: equal for two pages of one query."""
