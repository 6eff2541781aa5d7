"""Celery: two processes, acknowledged late, a task that writes with SQLAlchemy and psycopg.

The event leaves through the app's own pool of producers, confirmed. Results that nobody reads are
not stored. Two processes with the default prefetch multiplier of 4 were the best of 2, 4 and 8
processes with 4 and 64, tried on 2 cores; the guide to optimizing expects more of 64.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from kombu import Queue
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session, sessionmaker

from dev.benchmarks.contenders.event import TYPE, event
from dev.benchmarks.contenders.users import User

QUEUE = os.environ["BENCH_QUEUE"]

app = Celery("bench", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    task_queues=[Queue(QUEUE)],  # durable, classic
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_enable_remote_control=False,
)
sessions: sessionmaker[Session]


@worker_process_init.connect
def connect(**_: Any) -> None:
    """Each process has connections of its own: none may be shared over a fork."""
    global sessions  # noqa: PLW0603
    url = make_url(os.environ["BENCH_DATABASE_URL"]).set(drivername="postgresql+psycopg")
    sessions = sessionmaker(create_engine(url), expire_on_commit=False)


@app.task(name="create")
def create(command: dict[str, Any]) -> None:
    user = User(**command["data"])
    with sessions.begin() as session:
        session.add(user)
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(
            event(command, user.as_dict()),
            exchange=os.environ["BENCH_EVENTS"],
            routing_key=TYPE,
            delivery_mode="persistent",
            serializer="json",
        )


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as filling:
        for line in sys.stdin.buffer:
            create.apply_async((json.loads(line),), producer=filling)
