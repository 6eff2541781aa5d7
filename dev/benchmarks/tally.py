"""Is every event there, exactly once, and does the table agree?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """What the events and the table say of a run; all zero in a run that was in order."""

    lost: int = 0
    """Commands that no event answers."""
    repeated: int = 0
    """Events beyond the first for the same command."""
    strange: int = 0
    """Events that answer no command of this run, or that cannot be read."""
    unexpected: int = 0
    """Events beyond the number expected of their type."""
    rows_off: int = 0
    """Rows in the table, less those that must be there."""
    left: int = 0
    """Commands still in the queue after the contender has stopped."""

    @property
    def clean(self) -> bool:
        """Whether everything was done, once."""
        return self == Tally()

    def __str__(self) -> str:
        said = (
            (self.lost, "lost"),
            (self.repeated, "repeated"),
            (self.strange, "strange events"),
            (self.unexpected, "of an unexpected type"),
            (self.rows_off, "rows off"),
            (self.left, "left in the queue"),
        )
        return ", ".join(f"{count:,} {what}" for count, what in said if count) or "each once"


def tally(
    commands: Iterable[bytes],
    events: Iterable[bytes],
    *,
    types: Mapping[str, int],
    rows: int,
    rows_expected: int,
    left: int,
) -> Tally:
    """Compare what was sent with what came back.

    Args:
        commands: bodies with a member `id`.
        events: bodies with the members `commandid` and `type`.
        types: how many events of each type are expected.
        rows: rows found in the table, of which `rows_expected` must be there.
        left: commands still in the queue.
    """
    sent = {json.loads(body)["id"] for body in commands}
    answered: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    unreadable = 0
    for body in events:
        try:
            event = json.loads(body)
            answered[event["commandid"]] += 1
            seen[event["type"]] += 1
        except (ValueError, KeyError, TypeError):
            unreadable += 1
    return Tally(
        lost=sum(1 for id_ in sent if not answered[id_]),
        repeated=sum(answered[id_] - 1 for id_ in sent if answered[id_] > 1),
        strange=unreadable + sum(n for id_, n in answered.items() if id_ not in sent),
        unexpected=sum((seen - Counter(types)).values()),
        rows_off=rows - rows_expected,
        left=left,
    )
