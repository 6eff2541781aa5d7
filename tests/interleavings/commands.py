"""Commands whose handlers behave in known ways, and what must become of them.

`user.note` applies itself to the row of its key, and then does as its data say.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sqlalchemy.exc import IntegrityError

from tests.interleavings.database import Client, Session, Told, server_says
from worker.entities.user import User
from worker.errors import Conflict, Refusal
from worker.messages import Command, Event, utc_now
from worker.registry import Entity, Payload, Registry, Verb
from worker.rows import Record
from worker.work import Work

EXPECTED = {
    "fine": "user.noted",
    "refuse": "user.note.rejected",
    "conflict": "user.note.rejected",
    "flaky": "user.noted",
    "broken": "user.note.failed",
    "hopeless": "user.note.failed",
    "poison": "user.note.failed",
}
"""The type of the event that ends each behaviour, whatever else happens."""

FLAKY_ATTEMPTS = 2
MAX_ATTEMPTS = 5
# Statements that fail count as attempts: with so few of them no command is given up for that.
MAX_STATEMENT_FAULTS = MAX_ATTEMPTS - FLAKY_ATTEMPTS


class Worker(Client, Protocol):
    """The process that carries the command out."""

    attempts: Counter[int]
    kill: Callable[[], None]


class Note(Payload):
    """Which command it is, and how its handler behaves."""

    number: int
    behaviour: str


@dataclass(frozen=True)
class Planned:
    """A command that is to be sent."""

    number: int
    key: str | None
    behaviour: str
    id: str | None

    @property
    def row(self) -> str:
        """The row that it is applied to."""
        return self.key or f"alone-{self.number}"

    @property
    def body(self) -> bytes:
        """The message."""
        members: dict[str, Any] = {
            "type": "user.note",
            "data": {"number": self.number, "behaviour": self.behaviour},
        }
        if self.id is not None:
            members["id"] = self.id
        if self.key is not None:
            members["key"] = self.key
        return json.dumps(members).encode()


async def note(work: Work, command: Command) -> Event:
    """Write, then do as the command says."""
    session = cast(Session, work.session)
    worker = cast(Worker, session.client)
    number, behaviour = command.data.number, command.data.behaviour
    row = command.envelope.key or f"alone-{number}"
    if behaviour == "refuse":
        raise Conflict(f"command {number} is refused")
    worker.attempts[number] += 1
    version = await session.apply(row, str(number))
    match behaviour:
        case "poison":
            worker.kill()
            await asyncio.Event().wait()
        case "broken":
            raise RuntimeError("it is broken")
        case "flaky" if worker.attempts[number] < FLAKY_ATTEMPTS:
            raise RuntimeError("it is broken this time")
        case "hopeless":
            await session.fail(server_says("22003"))
        case "conflict":
            await session.fail(_violated())
    values = {
        "id": 1,
        "username": row,
        "email": str(number),
        "rating": None,
        "version": version,
        "created_on": utc_now(),
        "updated_on": utc_now(),
    }
    return Event("user.noted", Record(work.registry[command.entity], values))


def _violated() -> IntegrityError:
    told = Told("23505")
    told.__cause__ = cast(Any, type("Cause", (Exception,), {"constraint_name": "uq_note"})())
    return IntegrityError("…", {}, told)


def explain(entity: Entity, command: Command, constraint: str) -> Refusal | None:
    """What the violated constraint means."""
    return Conflict(f"command {command.data.number} is in conflict")


REGISTRY = Registry(
    [
        Entity(
            name="user",
            model=User,
            verbs={"note": Verb(note, Note, targeted=False, batched=True)},
            explain=explain,
        )
    ]
)
