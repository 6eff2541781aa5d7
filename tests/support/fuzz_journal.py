"""The book of a fuzzing run: each message that was sent, its events and its dead letters.

An answer is traced to its message by the correlation id where that is a mark of ours, else by the
untouched body of the dead letter, or by the name of the user that was created.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.fuzz.hostile import Hostile, mark
from tests.support.harness import Message

UNUSABLE = {"malformed", "unknown_type", "invalid", "too_large"}
REFUSED = {"not_found", "conflict", "version_mismatch", "id_reused"}


@dataclass(frozen=True)
class Verdict:
    """What was found; nothing is wrong if all lists are empty."""

    done: int
    refused: int
    dead_lettered: int
    lost: list[str]
    """Messages with no answer."""
    twice: list[str]
    strange: list[str]
    """Answers that belong to no message, or that are not what the contract says."""
    codes: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        return [*self.lost, *self.twice, *self.strange]


def settle(
    sent: Sequence[Hostile], events: Iterable[Message], letters: Iterable[Message]
) -> Verdict:
    """Hold the answers against what was sent."""
    by_mark = {mark(message.name): message for message in sent if message.marked}
    by_body = {message.body: message for message in sent if not message.marked}
    by_user = {message.name: message for message in sent if not message.marked}
    answers: Counter[str] = Counter()
    strange: list[str] = []
    twice: list[str] = []
    codes: Counter[str] = Counter()
    set_aside: dict[str, Hostile] = {}
    names: set[str] = set()
    for letter in letters:
        message = by_mark.get(letter.properties.correlation_id or "") or by_body.get(letter.body)
        if message is None or letter.body != message.body:
            strange.append(f"dead letter {letter.body[:60]!r}")
        elif message.name in names:
            twice.append(f"{message.name}: another dead letter")
        else:
            # Duplicates share an event; then their marks tell them apart.
            names.add(message.name)
            set_aside[str(letter.headers["x-event-id"])] = message
    letters_owed = set(set_aside)
    for event in events:
        message = (
            # The property, since a duplicate gets the first one's body.
            by_mark.get(event.properties.correlation_id or "")
            or set_aside.get(event.json["id"])
            or by_user.get(event.data.get("username", ""))
        )
        if message is None:
            strange.append(f"event {event.body[:200]!r}")
            continue
        answers[message.name] += 1
        codes[code := event.data.get("code", "done")] += 1
        letters_owed.discard(event.json["id"])
        if reason := _wrong(event, code, dead=event.json["id"] in set_aside):
            strange.append(f"{message.name}: {reason}")
    strange += [f"{set_aside[id_].name}: a dead letter without its event" for id_ in letters_owed]
    refused = sum(count for code, count in codes.items() if code in REFUSED)
    return Verdict(
        done=codes["done"],
        refused=refused,
        dead_lettered=len(names),
        lost=[f"{message.name}: no answer" for message in sent if not answers[message.name]],
        twice=twice + [f"{name}: {count} answers" for name, count in answers.items() if count > 1],
        strange=strange,
        codes=dict(codes),
    )


def _wrong(event: Message, code: str, *, dead: bool) -> str:
    """What is wrong with an answer, if anything is."""
    kind = event.routing_key.rpartition(".")[2]
    if code == "done":
        return "" if kind in ("created", "updated", "deleted") and not dead else f"{kind}, {dead=}"
    problem: dict[str, Any] = event.data
    if kind != "rejected" or code not in UNUSABLE | REFUSED:
        return f"ends as {event.routing_key} with code {code}: {problem['detail']}"
    if dead is not (code in UNUSABLE):
        return f"{code}, {dead=}"
    if not problem["title"] or not problem["detail"]:
        return "says nothing"
    return ""
