"""Users with further verbs that misbehave: `WORKER_ENTITIES=dev.chaos.entities`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.messages import Command, Event
from worker.core.payloads import Payload
from worker.core.registry import Verb
from worker.entities.order import ORDER
from worker.entities.user import USER, User
from worker.processing.crud import fetch

POISONED = 99
"""Exit code of a process that met its poison."""

_attempts: Counter[str] = Counter()


class Times(Payload):
    times: int


class How(Payload):
    how: str


async def stumble(session: AsyncSession, command: Command) -> Event:
    """Fails the first few times in each process, after it has written."""
    user = await fetch(session, User, command)
    id_ = command.envelope.id or ""
    _attempts[id_] += 1
    user.rating = 13
    await session.flush()
    if _attempts[id_] <= command.data.times:
        raise RuntimeError("this attempt fails")
    user.rating = 1
    user.version += 1
    return Event("user.stumbled", user)


async def dawdle(session: AsyncSession, command: Command) -> Event:
    """Holds its transaction for a while."""
    user = await fetch(session, User, command)
    await asyncio.sleep(0.3)
    user.rating = 1
    user.version += 1
    return Event("user.dawdled", user)


async def die(session: AsyncSession, command: Command) -> Event:
    """Takes the whole process down."""
    await fetch(session, User, command)
    os._exit(POISONED)


async def _raise(error: BaseException, *_: Any) -> Event:
    raise error


async def _commit(session: AsyncSession, user: User) -> Event:
    await session.commit()
    return Event("user.misbehaved", user)


async def _return(type_: str, _: AsyncSession, user: User) -> Any:
    return Event(type_, user) if type_ else None


async def _leave_a_task(_: AsyncSession, user: User) -> Any:
    asyncio.get_running_loop().create_task(asyncio.sleep(3_600))


async def _hang(*_: Any) -> Any:
    await asyncio.Event().wait()


MISBEHAVIOURS: dict[str, Callable[[AsyncSession, User], Awaitable[Any]]] = {
    "is cancelled": partial(_raise, asyncio.CancelledError()),
    "exits": partial(_raise, SystemExit(1)),
    "reaches nobody": partial(_raise, ConnectionRefusedError("a call of its own")),
    "commits": _commit,
    "returns nothing": partial(_return, ""),
    "returns a long type": partial(_return, "x" * 300),
    "leaves a task": _leave_a_task,
    "hangs": _hang,
}
"""What handlers must not do; each of them ends as failed."""


async def misbehave(session: AsyncSession, command: Command) -> Event:
    """Writes, and then does as the command says."""
    user = await fetch(session, User, command)
    user.rating = 13
    await session.flush()
    event: Event = await MISBEHAVIOURS[command.data.how](session, user)
    return event


ENTITIES = (
    replace(
        USER,
        verbs={
            **USER.verbs,
            "stumble": Verb(stumble, Times),
            "dawdle": Verb(dawdle),
            "die": Verb(die),
            "misbehave": Verb(misbehave, How),
        },
    ),
    ORDER,
)
