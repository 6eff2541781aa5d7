"""What the rig itself asks of the broker, with plain pika, a connection for each question."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel

from worker.testing.broker_errors import BROKER_AWAY, connect, parameters_of
from worker.testing.journal import Confirm, JournalWriter, PublishAttempt

Door = tuple[str, str]
"""An exchange and a routing key; without one, the id of the command is its key."""


def on_channel(url: str, use: Callable[[BlockingChannel], object]) -> None:
    """Open a connection and a channel, use it, close it."""
    connection = connect(parameters(url))
    try:
        use(connection.channel())
    finally:
        with suppress(*BROKER_AWAY):
            connection.close()


def consumers_of(url: str, queue: str) -> int:
    """How many consumers a queue has; 0 where it cannot be asked."""
    found = 0

    def look(channel: BlockingChannel) -> None:
        nonlocal found
        found = channel.queue_declare(queue, passive=True).method.consumer_count

    with suppress(*BROKER_AWAY):
        on_channel(url, look)
    return found


def ask(url: str, doors: Mapping[str, Door], within: float, pen: JournalWriter) -> bool:
    """Whether commands that are published, confirmed, now have their answers sent back in time.

    `doors` has for the id of each where it is published. They name no row, so that the answer is a
    refusal, which the worker records like any other.
    """
    unanswered = set(doors)

    def publish_and_wait(channel: BlockingChannel) -> None:
        replies = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        for id_, (exchange, routing_key) in doors.items():
            command = {"id": id_, "type": "order.delete", "key": id_, "target": {"id": 10**12}}
            properties = pika.BasicProperties(delivery_mode=2, reply_to=replies, correlation_id=id_)
            pen.write(PublishAttempt(id_, "order.delete", time.monotonic(), id_))
            body = json.dumps(command).encode()
            channel.basic_publish(exchange, routing_key or id_, body, properties, mandatory=True)
            pen.write(Confirm(id_, time.monotonic()))
        until = time.monotonic() + within
        while unanswered and time.monotonic() < until:
            _, theirs, _ = channel.basic_get(replies, auto_ack=True)
            if theirs is None:
                channel.connection.process_data_events(0.02)
            else:
                unanswered.discard(theirs.correlation_id or "")

    with suppress(*BROKER_AWAY):
        on_channel(url, publish_and_wait)
    return not unanswered


def exists(url: str, queue: str) -> bool:
    """Whether there is such a queue; not where the broker cannot be asked."""
    try:
        on_channel(url, lambda channel: channel.queue_declare(queue, passive=True))
    except BROKER_AWAY:
        return False
    return True


def parameters(url: str) -> list[pika.URLParameters]:
    """Of a client that does not wait for ever."""
    return parameters_of(
        url, socket_timeout=3, stack_timeout=5, blocked_connection_timeout=10, heartbeat=10
    )
