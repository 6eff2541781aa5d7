"""Users with further verbs that misbehave in known ways: `WORKER_ENTITIES=tests.support.probes`."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.errors import Conflict
from worker.core.messages import Command, Event
from worker.core.payloads import Payload
from worker.core.registry import Verb
from worker.entities.order import ORDER
from worker.entities.user import USER, User
from worker.processing.crud import fetch

ATTEMPTS: Counter[str] = Counter()
"""Attempts at each command, by its id."""

RELEASE = asyncio.Event()
"""Lets `user.linger` go on."""


class Times(Payload):
    times: int


async def fail(session: AsyncSession, command: Command) -> Event:
    """Fails the first few times, after it has written."""
    user = await fetch(session, User, command)
    ATTEMPTS[command.envelope.id or ""] += 1
    user.rating = 13
    await session.flush()
    if ATTEMPTS[command.envelope.id or ""] <= command.data.times:
        raise RuntimeError("this attempt fails")
    user.rating = 1
    return Event("user.failed_no_more", user)


async def write_and_refuse(session: AsyncSession, command: Command) -> Event:
    """Refuses after it has written."""
    user = await fetch(session, User, command)
    user.rating = 13
    await session.flush()
    raise Conflict("thought better of it")


async def bump(session: AsyncSession, command: Command) -> Event:
    """Adds one to the rating, by SQL that the ORM does not see."""
    user = await fetch(session, User, command)
    await session.execute(
        text("UPDATE users SET rating = coalesce(rating, 0) + 1 WHERE id = :id"), {"id": user.id}
    )
    await session.refresh(user)
    return Event("user.bumped", user)


async def lose_connection(session: AsyncSession, command: Command) -> Event:
    """Has the server end this very connection, the first few times."""
    user = await fetch(session, User, command)
    ATTEMPTS[command.envelope.id or ""] += 1
    if ATTEMPTS[command.envelope.id or ""] <= command.data.times:
        await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    return Event("user.kept", user)


async def linger(session: AsyncSession, command: Command) -> Event:
    """Holds its transaction until released."""
    user = await fetch(session, User, command)
    ATTEMPTS[command.envelope.id or ""] += 1
    await RELEASE.wait()
    return Event("user.lingered", user)


async def kill_the_process(session: AsyncSession, command: Command) -> Event:
    """Takes the whole worker down."""
    await fetch(session, User, command)
    os._exit(99)


ENTITIES = (
    replace(
        USER,
        verbs={
            **USER.verbs,
            "fail": Verb(fail, Times),
            "write_and_refuse": Verb(write_and_refuse),
            "bump": Verb(bump),
            "lose_connection": Verb(lose_connection, Times),
            "linger": Verb(linger),
            "kill_the_process": Verb(kill_the_process),
        },
    ),
    ORDER,
)
