"""taskiq with taskiq-aio-pika: a task whose resources are opened at the start and kept in state.

`taskiq worker` uses uvloop where it is installed, and it is. The queue is a durable quorum queue,
which is the library's default; the task is acknowledged after it has been executed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Annotated, Any

import aio_pika
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.exchange import Exchange
from taskiq_aio_pika.queue import Queue

from dev.benchmarks.contenders.consume import persistent
from dev.benchmarks.contenders.event import TYPE, event_bytes
from dev.benchmarks.contenders.users import User

# The best of 20/10, 100/10, 100/20, 300/20 and 300/50, tried on 2 cores.
PREFETCH, POOL = 300, 20
QUEUE = os.environ["BENCH_QUEUE"]
FILL_AT_ONCE = 200

broker = AioPikaBroker(
    os.environ["BENCH_BROKER_URL"],
    qos=PREFETCH,
    exchange=Exchange(name=QUEUE),
    task_queues=[Queue(name=QUEUE)],
    dead_letter_queue=Queue(name=f"{QUEUE}.dead"),
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(state: TaskiqState) -> None:
    state.engine = create_async_engine(
        os.environ["BENCH_DATABASE_URL"], pool_size=POOL, max_overflow=0
    )
    state.sessions = async_sessionmaker(state.engine, expire_on_commit=False)
    state.connection = await aio_pika.connect_robust(os.environ["BENCH_BROKER_URL"])
    channel = await state.connection.channel()
    state.events = await channel.get_exchange(os.environ["BENCH_EVENTS"])


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(state: TaskiqState) -> None:
    await state.connection.close()
    await state.engine.dispose()


@broker.task("create")
async def create(command: dict[str, Any], context: Annotated[Context, TaskiqDepends()]) -> None:
    user = User(**command["data"])
    async with context.state.sessions.begin() as session:
        session.add(user)
    await context.state.events.publish(persistent(event_bytes(command, user.as_dict())), TYPE)


async def fill() -> None:
    """Send a task for every command on stdin."""
    commands = [json.loads(line) for line in sys.stdin.buffer]
    await broker.startup()
    for start_ in range(0, len(commands), FILL_AT_ONCE):
        await asyncio.gather(
            *(create.kiq(command) for command in commands[start_ : start_ + FILL_AT_ONCE])
        )
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill())
