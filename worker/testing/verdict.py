"""What a book proves: a verdict on a worker, reached by a pure function.

Nothing is believed that is not written down: commands by their publisher, events and dead letters
by an observer, rows and ledger by whoever took stock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from worker.testing.journal import Journal, Ledger, ObservedEvent
from worker.testing.order import reordered
from worker.testing.rows import contradictions, effects_untold

UNUSABLE = frozenset({"malformed", "unknown_type", "invalid", "too_large"})
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of what became of the commands, and a sentence for everything that should not be."""

    attempted: int
    """Commands that were sent, confirmed or not."""
    confirmed: int
    done: int
    refused: int
    dead_lettered: int
    repeated: int
    """Events that came again, as they may: the same event, published once more."""
    lost: tuple[str, ...] = ()
    """Confirmed by the broker, and neither answered nor set aside nor waiting."""
    duplicated: tuple[str, ...] = ()
    """Two answers to one command, or an effect that no event tells of."""
    reordered: tuple[str, ...] = ()
    """Commands with one key, answered or carried out in another order than sent."""
    untrue: tuple[str, ...] = ()
    """Events that rows or ledger contradict, and ledger rows and letters without their event."""
    stuck: tuple[str, ...] = ()
    """Still in the queue at the end."""
    recoveries: tuple[tuple[str, float | None], ...] = ()
    """For each fault, seconds from its end to the next event; none if no event came after it."""

    @property
    def ok(self) -> bool:
        """Whether every promise was kept. How long recoveries took is not judged."""
        return not any((self.lost, self.duplicated, self.reordered, self.untrue, self.stuck))

    @property
    def charges(self) -> dict[str, tuple[str, ...]]:
        """The sentences by their kind, kinds without any included."""
        kinds = ("lost", "duplicated", "reordered", "untrue", "stuck")
        return {kind: getattr(self, kind) for kind in kinds}

    def __str__(self) -> str:
        lines = [
            f"{self.attempted:,} commands sent, {self.confirmed:,} confirmed by the broker: "
            f"{self.done:,} done, {self.refused:,} refused, {self.dead_lettered:,} dead-lettered; "
            f"{self.repeated:,} events came again.",
            " · ".join(f"{kind} {len(found):,}" for kind, found in self.charges.items()),
        ]
        for kind, found in self.charges.items():
            lines += [f"  {kind}: {sentence}" for sentence in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"  {kind}: … and {len(found) - SHOWN:,} more")
        return "\n".join(lines)


def judge(book: Journal, *, ordered: bool = True) -> Verdict:
    """The verdict. Raises `ValueError` where no stock was taken: without, much would go unnoticed.

    Order is promised within one worker process, or with partitions; without either, say so by
    `ordered=False`.
    """
    if book.stock is None:
        raise ValueError("no stock was taken at the end: call take_stock before judging the book")
    answers = _by_command(book)
    dead = {letter.command_id for letter in book.letters}
    outcome = {id_: _outcome(events) for id_, events in answers.items()}
    outcome |= {id_: "dead-lettered" for id_ in dead if id_ and id_ not in outcome}
    counts = list(outcome.values())
    return Verdict(
        attempted=len({each.id for each in book.attempts}),
        confirmed=len({each.id for each in book.confirms}),
        done=counts.count("done"),
        refused=counts.count("refused"),
        dead_lettered=counts.count("dead-lettered"),
        repeated=_repeated(book),
        lost=tuple(_lost(book, answers)),
        duplicated=(*_answered_twice(book, answers), *effects_untold(book)),
        reordered=tuple(reordered(book)) if ordered else (),
        untrue=(*_unfounded(book, answers), *contradictions(book)),
        stuck=tuple(f"{each.command_id or 'a message without an id'}" for each in book.waiting),
        recoveries=tuple(_recoveries(book)),
    )


def _by_command(book: Journal) -> dict[str, list[ObservedEvent]]:
    """The answers to each command; that its id was used for another one is none of them."""
    found: dict[str, list[ObservedEvent]] = {}
    for event in book.events:
        if event.command_id is not None and event.code != "id_reused":
            found.setdefault(event.command_id, []).append(event)
    return found


def _outcome(answers: list[ObservedEvent]) -> str:
    if any(event.succeeded for event in answers):
        return "done"
    return "dead-lettered" if all(map(_sets_aside, answers)) else "refused"


def _sets_aside(event: ObservedEvent) -> bool:
    return event.type.endswith(".failed") or event.code in UNUSABLE


def _repeated(book: Journal) -> int:
    # The observer itself may have been given one message twice; its id tells.
    published = {(event.event_id, event.message_id) for event in book.events}
    return len(published) - len({event.event_id for event in book.events})


def _lost(book: Journal, answers: dict[str, list[ObservedEvent]]) -> Iterator[str]:
    dead = {letter.command_id for letter in book.letters}
    waiting = {each.command_id for each in book.waiting}
    for id_ in dict.fromkeys(each.id for each in book.confirms):
        if id_ not in answers and id_ not in dead and id_ not in waiting:
            yield f"{id_} was confirmed, and neither an event nor a dead letter came of it"
    for id_, events in answers.items():
        if _outcome(events) == "dead-lettered" and id_ not in dead:
            yield f"{id_} was set aside, says its event, and is not among the dead letters"


def _answered_twice(book: Journal, answers: dict[str, list[ObservedEvent]]) -> Iterator[str]:
    bodies: dict[tuple[str | None, str], set[str]] = {}
    for event in book.events:
        bodies.setdefault((event.command_id, event.event_id), set()).add(event.digest)
    for (id_, event_id), digests in bodies.items():
        if len(digests) > 1 and event_id:
            yield f"{id_}: its event {event_id} came with {len(digests)} different bodies"
    for id_, events in answers.items():
        different = {event.event_id: event.type for event in events}
        if len(different) > 1:
            yield f"{id_} got {len(different)} different answers: {', '.join(different.values())}"


def _unfounded(book: Journal, answers: dict[str, list[ObservedEvent]]) -> Iterator[str]:
    """Events that ledger and publisher know nothing of, and the reverse."""
    sent = {each.id for each in book.attempts}
    ledger = {each.command_id: each for each in book.ledger}
    seen = {event.event_id for event in book.events}
    for event in book.events:
        if not event.event_id:
            yield f"an event of type {event.type} cannot be read"
    for id_, events in answers.items():
        if id_ not in sent:
            yield f"{id_} was never sent, and {events[0].type} answers it"
        yield from _against_ledger(id_, events, ledger.get(id_))
    for entry in book.ledger:
        # The ledger also remembers commands from before this book.
        if entry.command_id in sent and entry.event_id not in seen:
            yield f"{entry.command_id}: the ledger says {entry.outcome}, and its event never came"
    for letter in book.letters:
        if letter.event_id is not None and letter.event_id not in seen:
            yield f"{letter.command_id}: its dead letter names an event that never came"


def _against_ledger(id_: str, events: list[ObservedEvent], entry: Ledger | None) -> Iterator[str]:
    outcome = _outcome(events)
    if entry is None:
        if outcome == "done":
            yield f"{id_}: {events[0].type} was told, and the ledger knows nothing of it"
        return
    if entry.outcome.replace("_", "-") != outcome:
        yield f"{id_}: its event says {outcome}, the ledger says {entry.outcome}"
    for event in events:
        if event.event_id == entry.event_id and event.digest != entry.digest:
            yield f"{id_}: the body of its event differs from that in the ledger"


def _recoveries(book: Journal) -> Iterator[tuple[str, float | None]]:
    times = sorted(event.at for event in book.events)
    for fault in book.faults:
        after = next((at for at in times if at >= fault.ended), None)
        yield fault.name, None if after is None else after - fault.ended
