"""Commands whose handlers behave in known ways, and what must become of them.

`user.note` and `user.mark` apply themselves to the row of their key, and then do as their data say;
a note names no target, so where it comes alone it is taken for a create at first. `user.create` is
the worker's own, with that behaviour before it or in its values.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol, cast

from tests.support.interleavings.database import TAKEN, Client, server_says, violates
from tests.support.interleavings.session import Session
from worker.core.errors import Conflict, Refusal
from worker.core.messages import Command, Event, utc_now
from worker.core.registry import Entity, Payload, Registry, Verb
from worker.entities.user import User, UserCreate, UserKey
from worker.processing import crud
from worker.processing.row_cache import Record
from worker.processing.unit_of_work import Work

PAST = {"create": "created", "note": "noted", "mark": "marked"}
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
    verb: str
    key: str | None
    behaviour: str
    id: str | None

    @property
    def row(self) -> str:
        """The row that it is applied to, or makes."""
        row = self.key or f"alone-{self.number}"
        if self.verb != "create":
            return row
        return TAKEN["username"] if self.behaviour == "conflict" else f"{row}/{self.number}"

    @property
    def ends_as(self) -> str:
        """The type of the event that ends it."""
        how = EXPECTED[self.behaviour]
        return f"user.{self.verb}.{how}" if how else f"user.{PAST[self.verb]}"

    @property
    def body(self) -> bytes:
        """The message."""
        data: dict[str, Any] = {"number": self.number, "behaviour": self.behaviour}
        if self.verb == "create":
            email = f"{self.number}.{self.behaviour}@x.example"
            data = {"username": self.row, "email": email}
        members: dict[str, Any] = {"type": f"user.{self.verb}", "data": data}
        if self.verb == "mark":
            members["target"] = {"username": self.row}
        if self.id is not None:
            members["id"] = self.id
        if self.key is not None:
            members["key"] = self.key
        return json.dumps(members).encode()


async def create(work: Work, command: Command) -> Event:
    """Do as the command says, or let its values do so."""
    number, behaviour = command.data.email.partition("@")[0].split(".")
    await _behave(_worker(work), int(number), behaviour)
    event = await crud.create_row(work, command)
    if behaviour == "hopeless":
        event.row.values["rating"] = inf
    return event


async def note(work: Work, command: Command) -> Event:
    """Write, then do as the command says."""
    session = cast(Session, work.session)
    await work.flush()  # what was created before it comes before it
    number, behaviour = command.data.number, command.data.behaviour
    row = command.target.value if command.target else command.envelope.key or f"alone-{number}"
    version = await session.apply(row, str(number)) if behaviour != "refuse" else 0
    await _behave(_worker(work), number, behaviour)
    match behaviour:
        case "hopeless":
            await session.fail(server_says("22003"))
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
    return Event(f"user.{PAST[command.verb]}", Record(work.registry[command.entity], values))


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


def _worker(work: Work) -> Worker:
    return cast(Worker, cast(Any, work)._session.client)


async def prepare(work: Work, commands: Sequence[Command]) -> None:
    """The rows that notes are applied to are none of the worker's."""
    creates = [command for command in commands if command.verb == "create"]
    if creates:
        await crud.prepare(work, creates)


def explain(entity: Entity, command: Command, constraint: str) -> Refusal | None:
    """What the violated constraint means."""
    if command.verb == "create":
        return crud.explain(entity, command, constraint)
    return Conflict(f"command {command.data.number} is in conflict")


REGISTRY = Registry(
    [
        Entity(
            name="user",
            model=User,
            target=UserKey,
            prepare=prepare,
            verbs={
                "create": Verb(create, UserCreate, targeted=False, batched=True),
                "note": Verb(note, Note, targeted=False, batched=True),
                "mark": Verb(note, Note, batched=True),
            },
            explain=explain,
        )
    ]
)
