"""Which row that the database returned belongs to which that was given to it.

No database promises an order, and ids need not ascend: a sequence may go down, a trigger may make
them. So it is decided by what the rows hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

Values = Mapping[str, Any]
Stored = TypeVar("Stored", bound=Values)


class Unpaired(Exception):
    """The rows that came back do not tell for whom they were made; alone, each would."""


def pair(
    given: Sequence[Values], stored: Sequence[Stored], unique: Collection[str]
) -> list[Stored]:
    """The stored rows in the order of those that were given.

    Rows that were given alike in every column are interchangeable. Raises `Unpaired` where others
    cannot be told apart, because the database has changed what would tell them.
    """
    if len(given) == 1:
        return list(stored)
    for name in unique:
        by_value = {row[name]: row for row in stored}
        if len(by_value) == len(stored) and by_value.keys() == {row.get(name) for row in given}:
            return [by_value[row[name]] for row in given]
    return _pair_by_all(given, stored)


def _pair_by_all(given: Sequence[Values], stored: Sequence[Stored]) -> list[Stored]:
    """By all columns that came back as they were given."""
    kept = [
        name
        for name in given[0]
        if Counter(_token(row[name]) for row in given)
        == Counter(_token(row[name]) for row in stored)
    ]
    found: dict[Hashable, list[Stored]] = defaultdict(list)
    for row in stored:
        found[_tokens(row, kept)].append(row)
    whole = {(_tokens(row, kept), _tokens(row, given[0])) for row in given}
    wanted = Counter(_tokens(row, kept) for row in given)
    if len(whole) != len(wanted) or any(len(found[key]) != wanted[key] for key in wanted):
        raise Unpaired("rows of one INSERT cannot be told apart")
    return [found[_tokens(row, kept)].pop() for row in given]


def _tokens(row: Values, names: Collection[str]) -> Hashable:
    return tuple(_token(row[name]) for name in names)


def _token(value: Any) -> Hashable:
    """Equal for equal values, and hashable; JSON's `true` is not its `1`."""
    match value:
        case dict():
            return dict, frozenset((name, _token(each)) for name, each in value.items())
        case list() | tuple():
            return list, tuple(map(_token, value))
        case bool():
            return bool, value
    return value if isinstance(value, Hashable) else repr(value)
