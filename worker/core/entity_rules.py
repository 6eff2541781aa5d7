"""What an entity must be for its commands to be carried out rightly; told as the worker starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Computed, Index, PrimaryKeyConstraint, UniqueConstraint, inspect
from sqlalchemy.orm import QueryableAttribute

from worker.core.errors import Misconfigured

if TYPE_CHECKING:
    from worker.core.registry import Entity, Reference, Registry

QUERY_WORDS = frozenset({"and", "or", "not", "all", "some", "none", "every"})
OURS = frozenset({"version", "created_on", "updated_on"})
"""Columns that the worker sets itself."""


def check(entity: Entity, registry: Registry) -> None:
    """Raise `Misconfigured` with the first thing that is wrong with an entity."""
    for wrong in _wrong_with(entity, registry):
        raise Misconfigured(f"WORKER_ENTITIES: the entity {entity.name!r} {wrong}")
    _refuse_words_of_queries(entity)


def _wrong_with(entity: Entity, registry: Registry) -> Iterator[str]:
    yield from _wrong_with_model(entity, registry)
    for field in entity.keys:
        if field not in entity.fields:
            yield f"has a key {field!r} that is no column of {entity.model.__name__}"
        elif not _is_unique(entity, field):
            rule = "lower(…)" if field in entity.model.ignore_case else "the column"
            yield (
                f"has a key {field!r} that may be several rows': there is no unique constraint or "
                f"index on {rule} alone"
            )
    for reference in entity.references:
        yield from _wrong_with_reference(entity, reference, registry)
    yield from _wrong_with_payloads(entity)


def _wrong_with_model(entity: Entity, registry: Registry) -> Iterator[str]:
    for other in registry:
        if other is not entity and other.table is entity.table:
            yield f"has the same table as {other.name!r}; give one of them the verbs of both"
    mapper = inspect(entity.model)
    if mapper.polymorphic_on is not None or mapper.local_table is not mapper.persist_selectable:
        yield "has a model with inheritance of tables, whose rows stand in several or share one"
    if [column.key for column in entity.table.primary_key] != [entity.fields["id"].key]:
        yield "has a primary key that is not its id alone"


def _is_unique(entity: Entity, field: str) -> bool:
    column, fold = entity.fields[field], field in entity.model.ignore_case
    for rule in entity.constraints:
        match rule:
            case PrimaryKeyConstraint() | UniqueConstraint() if not fold:
                if [*rule.columns] == [column]:
                    return True
            case Index(unique=True) if rule.dialect_kwargs.get("postgresql_where") is None:
                if len(rule.expressions) == 1 and _is_on(rule.expressions[0], column, fold=fold):
                    return True
    return False


def _is_on(expression: Any, column: Column[Any], *, fold: bool) -> bool:
    names = (column.name, f"{column.table.name}.{column.name}")
    told = str(expression).replace('"', "")
    return told in [f"lower({name})" if fold else name for name in names]


def _wrong_with_reference(
    entity: Entity, reference: Reference, registry: Registry
) -> Iterator[str]:
    known = {other.name: other for other in registry}
    if reference.entity not in known:
        yield (
            f"refers to the entity {reference.entity!r}, which there is not; there are: "
            f"{', '.join(known)}"
        )
    elif reference.field not in entity.fields:
        yield f"has a reference in {reference.field!r}, which is no column"
    else:
        other = known[reference.entity]
        targets = [key.column for key in entity.fields[reference.field].foreign_keys]
        if targets and other.fields["id"] not in targets:
            yield (
                f"has a reference in {reference.field!r} whose foreign key is not to the id of "
                f"{other.name!r}"
            )


def _wrong_with_payloads(entity: Entity) -> Iterator[str]:
    named = {reference.name for reference in entity.references}
    for name in ("create", "update"):
        verb = entity.verbs.get(name)
        if verb is None or not verb.batched or verb.payload is None:
            continue
        given = set(verb.payload.model_fields) - named
        if unknown := sorted(given - entity.fields.keys()):
            yield f"has {unknown[0]!r} in the data of its {name}, which is no column"
        taken = OURS | ({"id"} if name == "update" else set())
        if ours := sorted(given & taken):
            yield f"has {ours[0]!r} in the data of its {name}, which the worker sets itself"
        for field in sorted(given):
            if isinstance(entity.fields[field].server_default, Computed):
                yield f"has {field!r} in the data of its {name}, which the database computes"


def _refuse_words_of_queries(entity: Entity) -> None:
    model, words = entity.model, sorted(QUERY_WORDS)
    for name in words:
        if name in entity.columns or isinstance(getattr(model, name, None), QueryableAttribute):
            raise Misconfigured(
                f"{model.__name__}.{name}: no column and no relationship may be named so, because "
                f"a query's `where` has a meaning for it. Taken are: {', '.join(words)}"
            )
