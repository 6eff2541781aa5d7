"""FastStream: a subscriber with a pydantic model, a publisher as decorator, a SQLAlchemy session.

`faststream run` uses uvloop where it is installed, and it is. The command is acknowledged after the
event has been published and confirmed, which is the library's default.
"""

from __future__ import annotations

import os
from typing import Any

from faststream import FastStream
from faststream.rabbit import (
    Channel,
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitQueue,
)
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from dev.benchmarks.contenders.event import TYPE, event
from dev.benchmarks.contenders.users import User

# The best of 20/10, 100/10, 100/20, 300/20 and 300/50, tried on 2 cores.
PREFETCH, POOL = 100, 10
QUEUE_TYPE = QueueType(os.environ.get("BENCH_QUEUE_TYPE", "classic"))  # classic is its default

engine = create_async_engine(os.environ["BENCH_DATABASE_URL"], pool_size=POOL, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
broker = RabbitBroker(
    os.environ["BENCH_BROKER_URL"], default_channel=Channel(prefetch_count=PREFETCH)
)
app = FastStream(broker)
events = RabbitExchange(os.environ["BENCH_EVENTS"], type=ExchangeType.TOPIC, durable=True)


class NewUser(BaseModel):
    username: str
    email: str
    rating: float | None = None


class Command(BaseModel):
    id: str
    type: str
    data: NewUser


@broker.subscriber(RabbitQueue(os.environ["BENCH_QUEUE"], QUEUE_TYPE, durable=True))
@broker.publisher(exchange=events, routing_key=TYPE, persist=True)
async def create(command: Command) -> dict[str, Any]:
    user = User(**command.data.model_dump())
    async with sessions.begin() as session:
        session.add(user)
    return event(command.model_dump(), user.as_dict())
