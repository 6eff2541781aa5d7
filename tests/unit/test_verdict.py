"""The verdict: an honest book passes whatever its luck, and each kind of lie is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.testing.journal import (
    Confirm,
    Entry,
    FaultPeriod,
    Journal,
    Ledger,
    ObservedEvent,
    PublishAttempt,
    Seed,
    SetAside,
    Stock,
    StoredRow,
    Waiting,
    digest,
)
from worker.testing.verdict import Verdict, judge


class HonestWorker:
    """Writes the book of a worker that keeps every promise, with luck from a seed.

    Commands come to be sent more than once, confirmed late or never, told again and again.
    """

    def __init__(self, seed: int, commands: int) -> None:
        self.luck = Random(seed)
        self.entries: list[Entry] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self.told: list[ObservedEvent] = []
        self.ids = 0
        self.now = 0.0
        for number in range(3):
            values: dict[str, Any] = {"id": 1_000 + number, "version": 4, "name": "seed"}
            self.rows[f"user/{1_000 + number}"] = values
            self.entries.append(Seed(f"user/{1_000 + number}", 4, json.dumps(values)))
            self.entries.append(Ledger(f"old{number}", "done", f"old{number}", "user.created", "d"))
        for number in range(commands):
            self.command(f"c{number}")
        for subject, values in self.rows.items():
            self.entries.append(StoredRow(subject, values["version"], json.dumps(values)))
        self.entries.append(FaultPeriod("kill -9", 1.0, 2.0))
        self.entries.append(Stock(["user"], self.now))

    @property
    def book(self) -> Journal:
        return Journal.of(self.entries)

    def tick(self) -> float:
        self.now += 1
        return self.now

    def command(self, id_: str) -> None:
        key = self.luck.choice(["k1", "k2", None])
        for _ in range(self.luck.choice([1, 1, 1, 2, 3])):
            self.entries.append(PublishAttempt(id_, "user.any", self.tick(), key))
        # Without a confirm it may or may not have arrived.
        confirmed = self.luck.random() < 0.9
        if confirmed:
            self.entries.append(Confirm(id_, self.tick()))
        elif self.luck.random() < 0.5:
            return
        match self.luck.randrange(6):
            case 0:
                self.answer(id_, "user.create.rejected", None, {"code": "conflict"}, "refused")
                if self.luck.random() < 0.3:  # another command under the same id
                    data = {"code": "id_reused"}
                    self.answer(id_, "user.create.rejected", None, data, None)
            case 1:
                code = self.luck.choice(["invalid", "failed"])
                suffix = "failed" if code == "failed" else "rejected"
                event = self.answer(
                    id_, f"user.create.{suffix}", None, {"code": code}, "dead_lettered"
                )
                self.entries.append(SetAside(id_, event.event_id, code, self.tick()))
            case 2 if self.luck.random() < 0.3:  # the broker's delivery limit
                self.entries.append(SetAside(id_, None, None, self.tick()))
            case _:
                self.succeed(id_)

    def succeed(self, id_: str) -> None:
        if not self.rows or self.luck.random() < 0.4:
            self.ids += 1
            subject, verb = f"user/{self.ids}", "created"
            self.rows[subject] = {"id": self.ids, "version": 1, "name": id_}
        else:
            subject, verb = self.luck.choice(list(self.rows)), "updated"
            if self.luck.random() < 0.2:
                self.answer(id_, "user.deleted", subject, self.rows.pop(subject), "done")
                return
            self.rows[subject]["version"] += 1
            self.rows[subject]["name"] = id_
        self.answer(id_, f"user.{verb}", subject, self.rows[subject], "done")

    def answer(
        self, id_: str, type_: str, subject: str | None, data: dict[str, Any], outcome: str | None
    ) -> ObservedEvent:
        event_id = f"e{len(self.told)}"
        text = json.dumps(data)
        body = digest(f"{event_id} {text}".encode())
        event = ObservedEvent(
            id_, event_id, type_, subject, data.get("code"), text, body, "m0", self.tick()
        )
        self.told.append(event)
        self.entries.append(event)
        if outcome is not None:
            self.entries.append(Ledger(id_, outcome, event_id, type_, body))
        while self.luck.random() < 0.2:
            again = self.luck.choice(self.told)
            message = self.luck.choice(["m0", f"m{len(self.entries)}"])
            self.entries.append(replace(again, message_id=message, at=self.tick()))
        return event


@given(st.integers(0, 2**32), st.integers(0, 60))
def test_an_honest_book_passes(seed: int, commands: int) -> None:
    verdict = judge(HonestWorker(seed, commands).book)
    assert verdict.ok, str(verdict)


@given(st.integers(0, 2**32))
def test_what_became_of_the_commands_is_counted(seed: int) -> None:
    book = HonestWorker(seed, 60).book
    verdict = judge(book)
    assert verdict.attempted == 60
    assert verdict.confirmed == len(book.confirms)
    outcomes = [each.outcome for each in book.ledger if not each.command_id.startswith("old")]
    by_broker = sum(letter.event_id is None for letter in book.letters)
    assert verdict.done == outcomes.count("done")
    assert verdict.refused == outcomes.count("refused")
    assert verdict.dead_lettered == outcomes.count("dead_lettered") + by_broker
    assert verdict.recoveries[0][0] == "kill -9"


# Lies. Each takes an honest book, and luck, and tells one.


def a_success(book: Journal, luck: Random, *, last: bool = False) -> ObservedEvent:
    """An event of success; with `last` one that the final row still shows."""
    versions = {row.subject: row.version for row in book.rows}
    return luck.choice(
        [
            event
            for event in book.events
            if event.subject is not None
            and not event.type.endswith(".deleted")
            and (not last or versions.get(event.subject) == json.loads(event.data)["version"])
        ]
    )


def lose_a_command(book: Journal, luck: Random) -> Journal:
    id_ = luck.choice([confirm.id for confirm in book.confirms])
    return replace(
        book,
        events=tuple(event for event in book.events if event.command_id != id_),
        letters=tuple(letter for letter in book.letters if letter.command_id != id_),
    )


def lose_a_dead_letter(book: Journal, luck: Random) -> Journal:
    gone = luck.choice([letter for letter in book.letters if letter.event_id])
    return replace(book, letters=tuple(each for each in book.letters if each is not gone))


def answer_twice(book: Journal, luck: Random) -> Journal:
    event = luck.choice([each for each in book.events if each.code != "id_reused"])
    return replace(book, events=(*book.events, replace(event, event_id="another")))


def change_a_body(book: Journal, luck: Random) -> Journal:
    event = luck.choice(book.events)
    return replace(book, events=(*book.events, replace(event, digest="another")))


def apply_twice(book: Journal, luck: Random) -> Journal:
    """An update that was carried out two times, and told once."""
    row = luck.choice(book.rows)
    values = json.loads(row.values) | {"version": row.version + 1}
    twice = StoredRow(row.subject, row.version + 1, json.dumps(values))
    return replace(book, rows=tuple(twice if each is row else each for each in book.rows))


def create_twice(book: Journal, luck: Random) -> Journal:
    return replace(book, rows=(*book.rows, StoredRow("user/777", 1, '{"id": 777, "version": 1}')))


def lose_a_seed(book: Journal, luck: Random) -> Journal:
    touched = {event.subject for event in book.events}
    gone = luck.choice([seed.subject for seed in book.seeds if seed.subject not in touched])
    return replace(book, rows=tuple(row for row in book.rows if row.subject != gone))


def overtake(book: Journal, luck: Random) -> Journal:
    """Two commands with one key, sent one after the other, answered the other way round."""
    at = 1e6
    attempts = [PublishAttempt(id_, "user.any", at + n, "k9") for n, id_ in enumerate("ab")]
    confirms = [Confirm(id_, at + 2) for id_ in "ab"]
    told = [
        ObservedEvent(
            id_, f"e-{id_}", "user.create.rejected", None, "conflict", "{}", "d", "m", at + 3
        )
        for id_ in "ba"
    ]
    return replace(
        book,
        attempts=(*book.attempts, *attempts),
        confirms=(*book.confirms, *confirms),
        events=(*book.events, *told),
    )


def take_effect_in_another_order(book: Journal, luck: Random) -> Journal:
    """Told in the order sent, and yet the later command was the first to change the row."""
    lied = overtake(book, luck)
    b, a = lied.events[-2:]
    told = [
        replace(each, type="user.updated", subject="user/888", code=None, data=data)
        for each, data in ((a, '{"version": 2}'), (b, '{"version": 1}'))
    ]
    row = StoredRow("user/888", 2, '{"version": 2}')
    ledger = [
        Ledger(str(each.command_id), "done", each.event_id, each.type, each.digest) for each in told
    ]
    return replace(
        lied,
        events=(*lied.events[:-2], *told),
        rows=(*lied.rows, row),
        ledger=(*lied.ledger, *ledger),
    )


def tell_what_was_rolled_back(book: Journal, luck: Random) -> Journal:
    row = luck.choice(book.rows)
    data = json.dumps(json.loads(row.values) | {"version": row.version + 1})
    event = replace(a_success(book, luck), event_id="x", command_id="x", subject=row.subject)
    told = replace(event, data=data, type="user.updated")
    return replace(
        book,
        attempts=(*book.attempts, PublishAttempt("x", "user.update", 1e6)),
        events=(*book.events, told),
        ledger=(*book.ledger, Ledger("x", "done", "x", "user.updated", told.digest)),
    )


def lose_a_row(book: Journal, luck: Random) -> Journal:
    subject = a_success(book, luck, last=True).subject
    return replace(book, rows=tuple(row for row in book.rows if row.subject != subject))


def keep_a_deleted_row(book: Journal, luck: Random) -> Journal:
    event = luck.choice([each for each in book.events if each.type == "user.deleted"])
    version = json.loads(event.data)["version"]
    return replace(book, rows=(*book.rows, StoredRow(str(event.subject), version, event.data)))


def change_a_value(book: Journal, luck: Random) -> Journal:
    subject = a_success(book, luck, last=True).subject
    (row,) = [row for row in book.rows if row.subject == subject]
    other = replace(row, values=json.dumps(json.loads(row.values) | {"name": "else"}))
    return replace(book, rows=tuple(other if each is row else each for each in book.rows))


def tell_one_version_twice(book: Journal, luck: Random) -> Journal:
    event = a_success(book, luck)
    data = json.dumps(json.loads(event.data) | {"name": "else"})
    other = replace(event, command_id="x", event_id="x", data=data)
    return replace(
        book,
        attempts=(*book.attempts, PublishAttempt("x", "user.update", 1e6)),
        events=(*book.events, other),
        ledger=(*book.ledger, Ledger("x", "done", "x", "user.updated", other.digest)),
    )


def forget_in_the_ledger(book: Journal, luck: Random) -> Journal:
    id_ = a_success(book, luck).command_id
    return replace(book, ledger=tuple(each for each in book.ledger if each.command_id != id_))


def contradict_in_the_ledger(book: Journal, luck: Random) -> Journal:
    entry = luck.choice(book.ledger[3:])
    other = replace(entry, outcome="refused" if entry.outcome == "done" else "done")
    return replace(book, ledger=tuple(other if each is entry else each for each in book.ledger))


def change_the_body_in_the_ledger(book: Journal, luck: Random) -> Journal:
    entry = luck.choice(book.ledger[3:])
    other = replace(entry, digest="another")
    return replace(book, ledger=tuple(other if each is entry else each for each in book.ledger))


def keep_an_event_back(book: Journal, luck: Random) -> Journal:
    return replace(
        book,
        attempts=(*book.attempts, PublishAttempt("x", "user.create", 1e6)),
        ledger=(*book.ledger, Ledger("x", "done", "never-published", "user.created", "d")),
    )


def keep_the_event_of_a_dead_letter_back(book: Journal, luck: Random) -> Journal:
    return replace(book, letters=(*book.letters, SetAside("x", "never-published", "failed", 1e6)))


def answer_what_nobody_sent(book: Journal, luck: Random) -> Journal:
    event = a_success(book, luck)
    return replace(
        book, attempts=tuple(each for each in book.attempts if each.id != event.command_id)
    )


def write_nonsense(book: Journal, luck: Random) -> Journal:
    nonsense = ObservedEvent(None, "", "user.created", None, None, "", "d", "m", 1e6)
    return replace(book, events=(*book.events, nonsense))


def leave_a_command_in_the_queue(book: Journal, luck: Random) -> Journal:
    id_ = "w"
    return replace(book, confirms=(*book.confirms, Confirm(id_, 1e6)), waiting=(Waiting(id_),))


LIES: list[tuple[Callable[[Journal, Random], Journal], str]] = [
    (lose_a_command, "lost"),
    (lose_a_dead_letter, "lost"),
    (answer_twice, "duplicated"),
    (change_a_body, "duplicated"),
    (apply_twice, "duplicated"),
    (create_twice, "duplicated"),
    (lose_a_seed, "duplicated"),
    (overtake, "reordered"),
    (take_effect_in_another_order, "reordered"),
    (tell_what_was_rolled_back, "untrue"),
    (lose_a_row, "untrue"),
    (keep_a_deleted_row, "untrue"),
    (change_a_value, "untrue"),
    (tell_one_version_twice, "untrue"),
    (forget_in_the_ledger, "untrue"),
    (contradict_in_the_ledger, "untrue"),
    (change_the_body_in_the_ledger, "untrue"),
    (keep_an_event_back, "untrue"),
    (keep_the_event_of_a_dead_letter_back, "untrue"),
    (answer_what_nobody_sent, "untrue"),
    (write_nonsense, "untrue"),
    (leave_a_command_in_the_queue, "stuck"),
]


@pytest.mark.parametrize(("lie", "charge"), LIES, ids=lambda each: getattr(each, "__name__", each))
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_each_lie_is_found(
    lie: Callable[[Journal, Random], Journal], charge: str, seed: int
) -> None:
    honest = HonestWorker(seed, 60).book
    try:
        lied = lie(honest, Random(seed))
    except IndexError:  # nothing in this book to lie about
        return
    verdict = judge(lied)
    assert verdict.charges[charge], str(verdict)
    assert not verdict.ok
    assert charge in str(verdict)


def test_a_command_that_waits_is_stuck_and_not_lost() -> None:
    verdict = judge(leave_a_command_in_the_queue(HonestWorker(1, 5).book, Random(1)))
    assert verdict.lost == ()
    assert verdict.stuck == ("w",)


def test_what_was_sent_again_has_no_certain_place() -> None:
    """`a` went out before and after `b`: either may have reached the queue first."""
    book = Journal(
        attempts=(
            PublishAttempt("a", "t", 1, "k"),
            PublishAttempt("b", "t", 2, "k"),
            PublishAttempt("a", "t", 3, "k"),
        ),
        confirms=(Confirm("b", 4), Confirm("a", 5)),
        events=tuple(
            ObservedEvent(id_, id_, "t.rejected", None, "conflict", "{}", "d", "m", 6)
            for id_ in "ba"
        ),
        stock=Stock([], 9),
    )
    assert judge(book).reordered == ()
    duplicate = replace(book, attempts=(*book.attempts[:2], PublishAttempt("a", "t", 6, "k")))
    confirmed = replace(duplicate, confirms=(Confirm("a", 2), Confirm("b", 4)))
    assert len(judge(confirmed).reordered) == 1, "a duplicate on purpose leaves the first in place"
    assert judge(confirmed, ordered=False).ok


def test_times_are_the_same_however_they_are_written() -> None:
    event = ObservedEvent(
        "c", "e", "user.created", "user/1", None,
        '{"version": 1, "on": "2026-11-26T10:00:00.100000Z", "rating": 3.0}', "d", "m", 2,
    )  # fmt: skip
    values = '{"id": 1, "version": 1, "on": "2026-11-26T10:00:00.1+00:00", "rating": 3}'
    book = Journal(
        attempts=(PublishAttempt("c", "t", 1),),
        events=(event,),
        rows=(StoredRow("user/1", 1, values),),
        ledger=(Ledger("c", "done", "e", "user.created", "d"),),
        stock=Stock(["user"], 9),
    )
    assert judge(book).ok, str(judge(book))


def test_without_stock_there_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="take_stock"):
        judge(Journal())


def test_the_words_say_what_became_of_all_and_name_a_few() -> None:
    lost = tuple(f"c{n} was lost" for n in range(12))
    words = str(Verdict(2_000, 1_900, 1_800, 60, 20, 3, lost=lost))
    assert words.startswith("2,000 commands sent, 1,900 confirmed by the broker: 1,800 done")
    assert "lost 12 · duplicated 0 · reordered 0 · untrue 0 · stuck 0" in words
    assert "  lost: c9 was lost\n  lost: … and 2 more" in words
