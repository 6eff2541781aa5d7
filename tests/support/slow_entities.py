"""An entity whose handler takes as long as the command says."""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.messages import Command, Event
from worker.core.payloads import Payload
from worker.core.registry import Entity, Verb
from worker.entities.user import User


class Nap(Payload):
    seconds: int


async def sleep(session: AsyncSession, command: Command) -> Event:
    print("asleep", file=sys.stderr, flush=True)
    await asyncio.sleep(command.data.seconds)
    raise AssertionError("nobody waits that long")


ENTITIES = (Entity(name="slow", model=User, verbs={"sleep": Verb(sleep, Nap)}),)
