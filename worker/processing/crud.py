"""Create, update and delete, written once for all entities.

`prepare` finds the rows that a group of commands needs with one statement a kind; the handlers then
work on what is in memory, and one flush writes what they changed, with one statement a kind again.
Every rule that a race could break is a constraint of the database as well; `explanation.py` turns
its violation into the same refusal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.errors import Conflict, NotFound, VersionMismatch
from worker.core.messages import Command, Event, Target, utc_now
from worker.core.models import Row
from worker.core.payloads import Key, Payload, values_of
from worker.core.registry import Entity, Reference, Verb
from worker.database.session_guard import guarded
from worker.processing.explanation import explain, taken
from worker.processing.row_cache import Record, RowCache
from worker.processing.unit_of_work import UnitOfWork

R = TypeVar("R", bound=Row)


def crud_entity(
    *,
    name: str,
    model: type[Row],
    create: type[Payload],
    update: type[Payload],
    target: type[Key] = Key,
    natural_key: str | None = None,
    references: tuple[Reference, ...] = (),
    deletable: Callable[[AsyncSession, Any], Awaitable[None]] | None = None,
    verbs: Mapping[str, Verb] | None = None,
) -> Entity:
    """An entity that can be created, updated and deleted; `verbs` adds its own ones.

    `create` and `update` are the models of the commands' data. For the rest see `Entity`.
    """
    return Entity(
        name=name,
        model=model,
        target=target,
        natural_key=natural_key,
        references=references,
        deletable=deletable,
        prepare=prepare,
        explain=explain,
        verbs={
            "create": Verb(create_row, create, targeted=False, batched=True),
            "update": Verb(update_row, update, batched=True),
            "delete": Verb(delete_row, batched=True),
            **(verbs or {}),
        },
    )


async def fetch(session: AsyncSession, model: type[R], command: Command) -> R:
    """For handlers of one's own: the row that the command is about, locked.

    Raises `NotFound` where there is none and `VersionMismatch` where it is not at the version that
    the sender expected.
    """
    target = command.target
    assert target is not None
    column, value = getattr(model, target.field), target.value
    is_it = column == value
    if target.field in model.ignore_case:
        is_it = func.lower(column) == func.lower(value)
    query = select(model).where(is_it).with_for_update()
    row = (await session.scalars(query)).one_or_none()
    if row is None:
        raise _missing(command.entity, target)
    _check_version(command, row)
    return row


async def prepare(work: UnitOfWork, commands: Sequence[Command]) -> None:
    """Find the rows that these commands of one entity need."""
    entity = work.registry[commands[0].entity]
    targets: dict[str, list[Any]] = defaultdict(list)
    uniques: dict[str, list[Any]] = defaultdict(list)
    references: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for command in commands:
        if command.target is not None:
            targets[command.target.field].append(command.target.value)
        if command.data is None:
            continue
        for field in command.data.model_fields_set.intersection(entity.keys):
            value = getattr(command.data, field)
            if value is not None:
                uniques[field].append(value)
        for reference in entity.references:
            field, value = _referenced(reference, command.data)
            if field:
                references[reference.entity][field].append(value)
    rows = work.rows(entity)
    await rows.load(targets, lock=True)
    await rows.load(uniques, lock=False)
    for name, wanted in references.items():
        await work.rows(work.registry[name]).load(wanted, lock=False)
    deleted = [command.target for command in commands if command.verb == "delete"]
    await _count_dependents(work, entity, [target for target in deleted if target])


async def create_row(work: UnitOfWork, command: Command) -> Event:
    """Add a row; refuse unique values that are taken and references to nothing."""
    entity = work.registry[command.entity]
    rows = await work.rows_now(entity)
    values = await _resolve(work, entity, command.data, values_of(command.data))
    if not work.trusts_constraints:
        await _refuse_taken(rows, entity, values, None)
    now = utc_now()
    values |= {"version": 1, "created_on": now, "updated_on": now}
    for name, default in entity.defaults.items():
        if name not in values:
            values[name] = default()
    return Event(f"{entity.name}.created", rows.create(values))


async def update_row(work: UnitOfWork, command: Command) -> Event:
    """Change the fields that are given, and nothing else."""
    entity = work.registry[command.entity]
    rows = await work.rows_now(entity)
    row = await _target(rows, entity, command)
    given = {name: getattr(command.data, name) for name in command.data.model_fields_set}
    values = await _resolve(work, entity, command.data, given)
    await _refuse_taken(rows, entity, values, row)
    values["version"] = row.version + 1
    for name, default in entity.update_defaults.items():
        values.setdefault(name, default())
    rows.change(row, values)
    if entity.contested.intersection(values):
        await work.flush()
    return Event(f"{entity.name}.updated", row)


async def delete_row(work: UnitOfWork, command: Command) -> Event:
    """Remove a row, where nothing depends on it; the event shows the row as it was."""
    entity = work.registry[command.entity]
    rows = await work.rows_now(entity)
    row = await _target(rows, entity, command)
    for dependent, reference in work.registry.dependents(entity):
        # Those of rows that were made in this transaction could not be counted before.
        others = await work.rows_now(dependent)
        count = await others.count(reference.field, row.id, beside=rows.own_ids())
        if count:
            raise _still_has(entity, row, count, dependent)
    if entity.deletable is not None:
        await work.flush()  # it may ask the database
        async with guarded(work.session):
            await entity.deletable(work.session, row)
    rows.delete(row)
    work.disturb(work.registry.disturbed_by(entity))
    return Event(f"{entity.name}.deleted", row)


async def _count_dependents(work: UnitOfWork, entity: Entity, targets: Sequence[Target]) -> None:
    """Count what depends on all the rows that are to be deleted."""
    found = [await work.rows(entity).target(target) for target in targets]
    ids = [row.id for row in found if row is not None]
    for dependent, reference in work.registry.dependents(entity) if ids else ():
        await work.rows(dependent).load_counts(reference.field, ids)


def _still_has(entity: Entity, row: Record, count: int, dependent: Entity) -> Conflict:
    plural = "" if count == 1 else "s"
    return Conflict(
        f"{entity.name} {row.id} still has {count} {dependent.name}{plural}; delete those first",
        pointer="/target",
    )


async def _target(rows: RowCache, entity: Entity, command: Command) -> Record:
    assert command.target is not None
    row = await rows.target(command.target)
    if row is None:
        raise _missing(entity.name, command.target)
    _check_version(command, row)
    return row


def _missing(entity: str, target: Target) -> NotFound:
    return NotFound(f"there is no {entity} with {target.field} {target.value!r}", pointer="/target")


def _check_version(command: Command, row: Row | Record) -> None:
    expected = command.expected_version
    if expected is not None and row.version != expected:
        raise VersionMismatch(
            f"{command.entity} {row.id} is at version {row.version}, not {expected}; "
            "read it again and decide anew",
            pointer="/expected_version",
        )


def _referenced(reference: Reference, data: Any) -> tuple[str, Any]:
    """The unique field and value that name the other row; an empty field if none is named."""
    named = getattr(data, reference.name, None)
    if named is not None:
        target = named.to_target()
        return target.field, target.value
    id_ = getattr(data, reference.field, None)
    return ("", None) if id_ is None else ("id", id_)


async def _resolve(
    work: UnitOfWork, entity: Entity, data: Any, values: dict[str, Any]
) -> dict[str, Any]:
    """The row's values, with every reference turned into the id of a row that exists."""
    for reference in entity.references:
        is_named = reference.name in data.model_fields_set
        if values.pop(reference.name, None) is None and is_named:
            values[reference.field] = None
        field, value = _referenced(reference, data)
        if not field:
            continue
        others = await work.rows_now(work.registry[reference.entity])
        other = await others.find(field, value)
        if other is None:
            member = reference.name if is_named else reference.field
            raise NotFound(
                f"there is no {reference.entity} with {field} {value!r}",
                pointer=f"/data/{member}",
            )
        values[reference.field] = other.id
    for name in entity.documents.intersection(values):
        values[name] = to_jsonable_python(values[name])  # models within it, and what else it may be
    return values


async def _refuse_taken(
    rows: RowCache, entity: Entity, values: Mapping[str, Any], row: Record | None
) -> None:
    for field in entity.keys:
        value = values.get(field)
        if value is None:
            continue
        other = await rows.holder(field, value)
        if other is not None and other is not row:
            raise taken(entity, field, value)
