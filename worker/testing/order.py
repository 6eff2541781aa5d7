"""Did commands with one key take effect, and were they answered, in the order sent?"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from worker.testing.journal import Journal


@dataclass(frozen=True, slots=True)
class _Sent:
    """A command that certainly was in the queue before whatever was sent after `settled`."""

    id: str
    first: int
    """Place of its first attempt among all attempts."""
    settled: int
    """Place of the attempt that was confirmed, or of a later one."""
    answered: int
    """Place of its first event among all events."""
    subject: str | None
    version: int | None
    """The row that it changed, and the row's version after it."""


def reordered(book: Journal) -> Iterator[str]:
    """A sentence for each command that overtook an earlier one.

    Two commands were sent in an order only if the later one's first attempt came after the earlier
    one's last: one that was sent again may have reached the queue at either time.
    """
    for (_, key), sent in _by_key(book).items():
        settled = sorted(sent, key=lambda each: each.settled)
        latest: _Sent | None = None
        newest: dict[str, _Sent] = {}
        reached = 0
        for later in sorted(sent, key=lambda each: each.first):
            while reached < len(settled) and settled[reached].settled < later.first:
                earlier = settled[reached]
                reached += 1
                if latest is None or earlier.answered > latest.answered:
                    latest = earlier
                if earlier.subject is not None:
                    known = newest.get(earlier.subject)
                    if known is None or (earlier.version or 0) > (known.version or 0):
                        newest[earlier.subject] = earlier
            if latest is not None and later.answered < latest.answered:
                yield f"{later.id} was answered before {latest.id}, sent earlier under {key!r}"
            rival = newest.get(later.subject or "")
            if rival is not None and (later.version or 0) < (rival.version or 0):
                yield f"{later.id} took effect before {rival.id}, sent earlier under {key!r}"


def _by_key(book: Journal) -> dict[tuple[str, str], list[_Sent]]:
    """Commands that were answered, by publisher and key: no two publishers share an order."""
    answered: dict[str, tuple[int, str | None, int | None]] = {}
    for place, event in enumerate(book.events):
        if event.command_id is not None and event.command_id not in answered:
            version = json.loads(event.data).get("version") if event.subject else None
            answered[event.command_id] = (place, event.subject, version)
    confirmed: dict[str, float] = {}
    for confirm in book.confirms:
        confirmed.setdefault(confirm.id, confirm.at)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    keys: dict[str, tuple[str, str]] = {}
    for place, attempt in enumerate(book.attempts):
        if attempt.key is None:
            continue
        keys[attempt.id] = (attempt.publisher, attempt.key)
        first.setdefault(attempt.id, place)
        # What was sent once more after its confirm is a duplicate on purpose.
        if attempt.at <= confirmed.get(attempt.id, float("inf")):
            last[attempt.id] = place
    found: dict[tuple[str, str], list[_Sent]] = defaultdict(list)
    for id_, key in keys.items():
        if id_ in answered and id_ in confirmed:
            found[key].append(_Sent(id_, first[id_], last[id_], *answered[id_]))
    return found
