"""Plain aio-pika and SQLAlchemy on uvloop: what a careful person writes without any framework."""

from __future__ import annotations

import json
import os

import uvloop
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from dev.benchmarks.contenders.consume import consume, persistent
from dev.benchmarks.contenders.event import TYPE, event_bytes
from dev.benchmarks.contenders.users import User

# The best of 20/10, 100/10, 100/20, 300/20 and 300/50, tried on 2 cores.
PREFETCH, POOL = 100, 10

engine = create_async_engine(os.environ["BENCH_DATABASE_URL"], pool_size=POOL, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def handle(message: AbstractIncomingMessage, events: AbstractExchange) -> None:
    command = json.loads(message.body)
    user = User(**command["data"])
    async with sessions.begin() as session:
        session.add(user)
    await events.publish(persistent(event_bytes(command, user.as_dict())), TYPE)


if __name__ == "__main__":
    uvloop.run(consume(handle, prefetch=PREFETCH))
