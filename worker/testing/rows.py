"""Do events and final rows tell the same story? A row's version grows by one with each effect."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from worker.testing.journal import Journal, ObservedEvent


def effects_untold(book: Journal) -> Iterator[str]:
    """Versions that a row went through and no event tells of: some command took effect twice."""
    told = _versions(book)
    before = {row.subject: row.version for row in book.seeds}
    for row in book.rows:
        first = before.get(row.subject, 0) + 1
        missing = set(range(first, row.version + 1)) - told[row.subject].keys()
        if missing:
            yield (
                f"{row.subject} is at version {row.version}, and no event tells of "
                f"{_versions_in_words(missing)}"
            )
    there = {row.subject for row in book.rows}
    for subject, versions in told.items():
        if subject not in there and _is_looked_at(book, subject):
            missing = set(range(before.get(subject, 0) + 1, max(versions))) - versions.keys()
            if missing:
                yield f"{subject} is gone, and no event tells of {_versions_in_words(missing)}"
    for subject in before.keys() - told.keys() - there:
        yield f"{subject} is gone, and no event tells of it"


def contradictions(book: Journal) -> Iterator[str]:
    """Events of success that the final rows, or other events, deny."""
    told = _versions(book)
    deleted = {event.subject: event for event in book.events if event.succeeded and _deletes(event)}
    rows = {row.subject: row for row in book.rows}
    for subject, versions in told.items():
        for version, events in versions.items():
            first, *others = [json.loads(event.data) for event in events]
            if any(_differences(first, other) for other in others):
                ids = " and ".join(str(event.command_id) for event in events)
                yield f"{subject} is told to be at version {version} with other values by {ids}"
        if not _is_looked_at(book, subject):
            continue
        row, last = rows.get(subject), versions[max(versions)][-1]
        if row is None:
            if subject not in deleted:
                yield f"{last.command_id}: {last.type} tells of {subject}, which is not there"
        elif subject in deleted:
            yield f"{deleted[subject].command_id}: {subject} was deleted, and is still there"
        elif max(versions) > row.version:
            yield (
                f"{last.command_id}: {last.type} tells of {subject} at version {max(versions)}, "
                f"and it ended at {row.version}"
            )
        elif max(versions) == row.version:
            wrong = _differences(json.loads(last.data), json.loads(row.values))
            if wrong:
                yield f"{last.command_id}: {last.type} and {subject} differ in {', '.join(wrong)}"


def _versions(book: Journal) -> dict[str, dict[int, list[ObservedEvent]]]:
    """Events of success by the row that they are about, and its version; each event once."""
    found: dict[str, dict[int, list[ObservedEvent]]] = defaultdict(lambda: defaultdict(list))
    seen: set[str] = set()
    for event in book.events:
        if event.subject is None or not event.succeeded or event.event_id in seen:
            continue
        seen.add(event.event_id)
        version = json.loads(event.data).get("version")
        if isinstance(version, int):
            # A deleted row is told as it was, so its version has been told before.
            found[event.subject][version].append(event)
    return found


def _deletes(event: ObservedEvent) -> bool:
    return event.type.endswith(".deleted")


def _is_looked_at(book: Journal, subject: str) -> bool:
    assert book.stock is not None
    return subject.partition("/")[0] in book.stock.entities


def _versions_in_words(missing: set[int]) -> str:
    first, *rest = sorted(missing)
    return f"version {first}" + (f" and {len(rest)} more" if rest else "")


def _differences(told: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Columns with other values; a column that only one side shows is none."""
    return [name for name in told if name in found and not _is_same(told[name], found[name])]


def _is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values mean the same; events and PostgreSQL write times differently."""
    if one == other or str(one) == str(other):
        return True
    try:
        return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    except (TypeError, ValueError):
        return False
