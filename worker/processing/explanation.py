"""What the violation of a rule of the database means to the sender of a command."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, Constraint, Index, Integer, Numeric, String
from sqlalchemy.dialects import postgresql

from worker.core.errors import Conflict, NotFound, Refusal
from worker.core.messages import Command
from worker.core.registry import Entity
from worker.core.violations import Violation
from worker.database.errors import UNFIT

UNIQUE, FOREIGN_KEY, RESTRICT, NOT_NULL = "23505", "23503", "23001", "23502"
_BROKEN_RULES = {
    "23514": "the {entity} would break the rule {rule}",
    "23P01": "the {entity} would collide with another one, by the rule {rule}",
    "42501": "a policy of the database does not allow this {entity}",
    "44000": "a view of the database does not allow this {entity}",
    "P0001": "a trigger of the database refuses this {entity}",
}
_HOW_UNFIT = {"22001": "is too long", "22003": "is out of range"}

_NUMBERS = int | float | Decimal

_prepare = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


def explain(entity: Entity, command: Command, violation: Violation) -> Refusal:
    """The refusal; where nothing more is known of the rule it tells the rule's name."""
    match violation.code:
        case code if code == UNIQUE:
            return _not_unique(entity, command, violation)
        case code if code in (FOREIGN_KEY, RESTRICT):
            return _not_referred(entity, command, violation)
        case code if code == NOT_NULL and violation.column is not None:
            field = _field(entity, violation.column)
            return Conflict(f"{field} must not be null", pointer=_data(field))
        case code if code in UNFIT:
            field = next(_unfit(entity, command), "")
            how = _HOW_UNFIT.get(code, "does not fit its column")
            return Conflict(
                f"{field or 'a value'} {how}", pointer=_data(field) if field else _whole(command)
            )
    told = _BROKEN_RULES.get(violation.code, "the {entity} would break the rule {rule}")
    rule = violation.constraint or violation.code
    return Conflict(told.format(entity=entity.name, rule=rule), pointer=_whole(command))


def taken(entity: Entity, field: str, value: Any) -> Conflict:
    """Another row has this value."""
    return Conflict(
        f"the {field} {value!r} is taken by another {entity.name}", pointer=_data(field)
    )


def _not_unique(entity: Entity, command: Command, violation: Violation) -> Conflict:
    fields = [_field(entity, column.name) for column in _columns(entity, violation)]
    given = [field for field in fields if hasattr(command.data, field)]
    if len(fields) == 1 and given:
        return taken(entity, fields[0], getattr(command.data, fields[0]))
    if given:
        same = " and ".join(fields)
        return Conflict(f"another {entity.name} has the same {same}", pointer=_data(given[0]))
    return Conflict(
        f"another {entity.name} has the same, by the rule {violation.constraint}",
        pointer=_whole(command),
    )


def _not_referred(entity: Entity, command: Command, violation: Violation) -> Refusal:
    """Either the row refers to nothing, or others refer to it, of what table ever."""
    is_own = violation.table == entity.table.name and command.verb != "delete"
    if not is_own or violation.code == RESTRICT:
        by = f" by rows of {violation.table}" if violation.table else ""
        return Conflict(f"the {entity.name} is still in use{by}", pointer=_whole(command))
    fields = {_field(entity, column.name) for column in _columns(entity, violation)}
    for reference in entity.references:
        if reference.field in fields:
            is_named = getattr(command.data, reference.name, None) is not None
            return NotFound(
                f"the {reference.entity} no longer exists",
                pointer=_data(reference.name if is_named else reference.field),
            )
    field = min(fields, default="")
    return NotFound(
        f"there is nothing to which {field or violation.constraint} could refer",
        pointer=_data(field) if field else _whole(command),
    )


def _columns(entity: Entity, violation: Violation) -> list[Column[Any]]:
    """The columns of a constraint or a unique index, where the model declares it."""
    for rule in entity.constraints:
        if rule.name is not None and _name_of(rule) == violation.constraint:
            return list(rule.columns)
    return []


def _name_of(rule: Constraint | Index) -> str | None:
    """Its name as the database knows it: long ones are cut."""
    if isinstance(rule, Index):
        name = _prepare.format_index(rule)
    else:
        name = _prepare.format_constraint(rule) or ""
    return name.strip('"').replace('""', '"')


def _unfit(entity: Entity, command: Command) -> Iterator[str]:
    """The fields whose values are larger than their columns."""
    for field, value in vars(command.data).items() if command.data is not None else ():
        column = entity.fields.get(field)
        match column.type if column is not None else None:
            case String(length=int(length)) if isinstance(value, str) and len(value) > length:
                yield field
            case Integer() as type_ if isinstance(value, int):
                bits = {"SMALLINT": 15, "BIGINT": 63}.get(str(type_), 31)
                if not -(2**bits) <= value < 2**bits:
                    yield field
            case Numeric(precision=int(digits), scale=scale) if isinstance(value, _NUMBERS):
                if abs(value) >= 10 ** (digits - (scale or 0)):
                    yield field


def _field(entity: Entity, column: str) -> str:
    return next((name for name, each in entity.fields.items() if each.name == column), column)


def _data(field: str) -> str:
    return f"/data/{field}"


def _whole(command: Command) -> str:
    return "/target" if command.data is None else "/data"
