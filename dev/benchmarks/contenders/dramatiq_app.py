"""Dramatiq: an actor that writes with SQLAlchemy and psycopg, on two processes of four threads.

The event leaves through the broker's own channel of the thread, confirmed. A message is
acknowledged after the actor has ended, which is how the library works. Processes and threads were
the best of 1x8, 2x4, 2x8, 2x16 and 4x8, tried on 2 cores.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import sessionmaker

from dev.benchmarks.contenders.event import TYPE, event_bytes
from dev.benchmarks.contenders.users import User

EVENTS = os.environ["BENCH_EVENTS"]
PROPERTIES = pika.BasicProperties(
    content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent
)

broker = RabbitmqBroker(url=os.environ["BENCH_BROKER_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)
url = make_url(os.environ["BENCH_DATABASE_URL"]).set(drivername="postgresql+psycopg")
sessions = sessionmaker(create_engine(url, pool_size=10), expire_on_commit=False)


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"])
def create(command: dict[str, Any]) -> None:
    user = User(**command["data"])
    with sessions.begin() as session:
        session.add(user)
    body = event_bytes(command, user.as_dict())
    broker.channel.basic_publish(EVENTS, TYPE, body, PROPERTIES)


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        create.send(json.loads(line))
