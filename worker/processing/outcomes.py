"""What a command comes to: its outcome with the event that tells it, and what the ledger keeps."""

from __future__ import annotations

import json
from datetime import datetime

from worker.codec.codec import Codec, UnserializableEvent
from worker.core.errors import IdReused, Refusal
from worker.core.messages import (
    Command,
    DeadLetter,
    Disallowed,
    Done,
    ErrorDetail,
    Event,
    Item,
    Job,
    Problem,
    Refused,
    Rejected,
    ResultEvent,
    Settled,
    utc_now,
)
from worker.core.registry import Registry
from worker.core.text import MAX_SHORT_STRING, is_event_type
from worker.database.ledger import DEAD_LETTERED, DONE, REFUSED, Entry
from worker.processing.row_cache import Record

MAX_KNOWN_TYPES = 1_000


class Unpublishable(Exception):
    """What a handler returned cannot be written as an event, and never will be."""


class Outcomes:
    """Makes the outcomes that settle a command."""

    def __init__(self, registry: Registry, codec: Codec) -> None:
        self._registry = registry
        self._codec = codec
        self._types: set[str] = set()  # of events, that were found to be usable

    def done(self, command: Command, event: Event, time: datetime) -> Done:
        """It took effect, at that time. Raises `Unpublishable` before that could be committed."""
        if event.type not in self._types:
            self._check_type(event.type)
        try:
            return self._done(command, event, time)
        except UnserializableEvent as error:
            raise Unpublishable(f"no JSON can be made of {event.type}: {error}") from error

    def _check_type(self, type_: object) -> None:
        """It is the event's routing key as well; the broker takes no longer one."""
        if not isinstance(type_, str) or not is_event_type(type_):
            told = f"{type_!r}"[:100]
            raise Unpublishable(
                f"{told} is no event type: 1 to {MAX_SHORT_STRING} bytes, words with dots between"
            )
        if len(self._types) < MAX_KNOWN_TYPES:
            self._types.add(type_)

    def _done(self, command: Command, event: Event, time: datetime) -> Done:
        row = event.row
        if isinstance(row, Record):
            about, data = row.entity, row.data
        else:
            about = self._registry.of_row(row)
            data = about.data_of(row)
        return Done(
            self._codec.answer(
                command.envelope,
                event.type,
                data,
                subject=f"{about.name}/{row.id}",
                time=time,
            )
        )

    def refused(self, item: Item, refusal: Refusal) -> Refused:
        """The business said no."""
        problem = problem_of(refusal)
        return Refused(
            self._codec.problem_answer(item.envelope, "rejected", problem, time=utc_now())
        )

    def barred(self, item: Disallowed) -> Refused:
        """Its sender may not send it."""
        return Refused(
            self._codec.problem_answer(item.envelope, "rejected", item.problem, time=utc_now())
        )

    def unusable(self, item: Rejected) -> DeadLetter:
        """It is no command that could be carried out."""
        problem = item.problem
        suffix = "failed" if problem.code == "failed" else "rejected"
        answer = self._codec.problem_answer(item.envelope, suffix, problem, time=utc_now())
        return DeadLetter(answer, problem.code, problem.detail, attempts=1)

    def failed(self, item: Item, attempts: int) -> DeadLetter:
        """Nothing came of it, however often it was tried."""
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        problem = Problem(
            "failed",
            f"The command failed in {times} and was set aside as a dead letter; "
            "the service's log says why. Nothing of it took effect.",
        )
        answer = self._codec.problem_answer(item.envelope, "failed", problem, time=utc_now())
        return DeadLetter(answer, problem.code, problem.detail, attempts)

    def replayed(self, job: Job, entry: Entry) -> Settled:
        """A duplicate gets the very same answer; another command under the same id does not.

        What is no usable command is set aside all the same: its sender has nothing else of it.
        """
        if entry.digest != job.envelope.digest:
            if isinstance(job.item, Rejected):
                return self.unusable(job.item)
            return self.refused(
                job.item,
                IdReused(
                    "this id was used before for another command; give every command its own",
                    pointer="/id",
                ),
            )
        answer = ResultEvent(entry.answer.id, entry.answer.type, entry.answer.body, replayed=True)
        if entry.outcome == DEAD_LETTERED:
            problem = json.loads(answer.body)["data"]
            return DeadLetter(answer, problem["code"], problem["detail"], attempts=0)
        return Done(answer) if entry.outcome == DONE else Refused(answer)


def problem_of(refusal: Refusal) -> Problem:
    """The refusal as the sender sees it; never fails, whatever a handler has made of it."""
    code, detail, pointer = (_text_of(refusal, name) for name in ("code", "detail", "pointer"))
    return Problem(code, detail, (ErrorDetail(pointer, code, detail),))


def _text_of(refusal: Refusal, name: str) -> str:
    try:
        text = str(getattr(refusal, name))
    except BaseException:
        return Refusal.code if name == "code" else ""
    return text.encode("utf-8", "replace").decode()


def entry_for(job: Job, outcome: Settled) -> Entry | None:
    """What the ledger keeps of the outcome; nothing for a command without an id."""
    if job.envelope.id is None:
        return None
    match outcome:
        case Done():
            name = DONE
        case Refused():
            name = REFUSED
        case DeadLetter():
            name = DEAD_LETTERED
    return Entry(job.envelope.id, job.envelope.digest, name, outcome.answer)
