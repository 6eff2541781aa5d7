"""Users with further verbs that misbehave: `WORKER_ENTITIES=dev.chaos.entities`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.messages import Command, Event
from worker.core.registry import Payload, Verb
from worker.entities.order import ORDER
from worker.entities.user import USER, User
from worker.processing.crud import fetch

POISONED = 99
"""Exit code of a process that met its poison."""

_attempts: Counter[str] = Counter()


class Times(Payload):
    times: int


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


ENTITIES = (
    replace(
        USER,
        verbs={
            **USER.verbs,
            "stumble": Verb(stumble, Times),
            "dawdle": Verb(dawdle),
            "die": Verb(die),
        },
    ),
    ORDER,
)
