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

from tests.support.interleavings.database import Client, server_says, violates
from tests.support.interleavings.session import Session
from worker.core.errors import Conflict, Refusal
from worker.core.messages import Command, Event, utc_now
from worker.core.payloads import Payload
from worker.core.registry import Entity, Registry, Verb
from worker.core.violations import Violation
from worker.entities.user import User, UserKey
from worker.processing.row_cache import Record
from worker.processing.unit_of_work import UnitOfWork

NOTED = "user.noted"
EXPECTED = {
    "fine": "",
    "refuse": "rejected",
    "conflict": "rejected",
    "flaky": "",
    "broken": "failed",
    "hopeless": "failed",
    "poison": "failed",
}
"""How each behaviour ends, whatever else happens."""

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
    def ends_as(self) -> str:
        """The type of the event that ends it."""
        how = EXPECTED[self.behaviour]
        return f"user.note.{how}" if how else NOTED

    @property
    def body(self) -> bytes:
        """The message."""
        data = {"number": self.number, "behaviour": self.behaviour}
        members: dict[str, Any] = {"type": "user.note", "data": data}
        if self.id is not None:
            members["id"] = self.id
        if self.key is not None:
            members["key"] = self.key
        return json.dumps(members).encode()


async def note(work: UnitOfWork, command: Command) -> Event:
    """Write, then do as the command says."""
    session = cast(Session, work.session)
    number, behaviour = command.data.number, command.data.behaviour
    row = command.envelope.key or f"alone-{number}"
    version = await session.apply(row, str(number)) if behaviour != "refuse" else 0
    await _behave(cast(Worker, session.client), number, behaviour)
    match behaviour:
        case "hopeless":
            await session.fail(server_says("22012"))
        case "conflict":
            await session.fail(violates("uq_note"))
    values = {
        "id": 1,
        "username": row,
        "email": str(number),
        "rating": None,
        "version": version,
        "created_on": utc_now(),
        "updated_on": utc_now(),
    }
    return Event(NOTED, Record(work.registry[command.entity], values))


async def _behave(worker: Worker, number: int, behaviour: str) -> None:
    if behaviour == "refuse":
        raise Conflict(f"command {number} is refused")
    worker.attempts[number] += 1
    match behaviour:
        case "poison":
            worker.kill()
            await asyncio.Event().wait()
        case "broken":
            raise RuntimeError("it is broken")
        case "flaky" if worker.attempts[number] < FLAKY_ATTEMPTS:
            raise RuntimeError("it is broken this time")


def explain(entity: Entity, command: Command, violation: Violation) -> Refusal | None:
    """What the violated constraint means."""
    return Conflict(f"command {command.data.number} is in conflict")


REGISTRY = Registry(
    [
        Entity(
            name="user",
            model=User,
            target=UserKey,
            verbs={"note": Verb(note, Note, targeted=False, batched=True)},
            explain=explain,
        )
    ]
)
