"""What the rig itself asks of the broker, with plain pika, a connection for each question."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from worker.testing.book import Attempt, Confirm, Pen


def on_channel(url: str, use: Callable[[BlockingChannel], object]) -> None:
    """Open a connection and a channel, use it, close it."""
    connection = pika.BlockingConnection(parameters(url))
    try:
        use(connection.channel())
    finally:
        with suppress(AMQPError, OSError):
            connection.close()


def consumers_of(url: str, queue: str) -> int:
    """How many consumers a queue has; 0 where it cannot be asked."""
    found = 0

    def look(channel: BlockingChannel) -> None:
        nonlocal found
        found = channel.queue_declare(queue, passive=True).method.consumer_count

    with suppress(AMQPError, OSError):
        on_channel(url, look)
    return found


def ask(url: str, exchange: str, id_: str, within: float, pen: Pen) -> bool:
    """Whether a command that is published, confirmed, now has its answer sent back in time.

    It names no row, so that the answer is a refusal, which the worker records like any other.
    """
    command = {"id": id_, "type": "order.delete", "key": id_, "target": {"id": 10**12}}
    body = json.dumps(command).encode()
    answered = False

    def publish_and_wait(channel: BlockingChannel) -> None:
        nonlocal answered
        replies = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=2, reply_to=replies)
        pen.write(Attempt(id_, "order.delete", time.monotonic(), id_))
        channel.basic_publish(exchange, "any", body, properties, mandatory=True)
        pen.write(Confirm(id_, time.monotonic()))
        until = time.monotonic() + within
        while not answered and time.monotonic() < until:
            method, _, _ = channel.basic_get(replies, auto_ack=True)
            answered = method is not None
            if not answered:
                channel.connection.process_data_events(0.02)

    with suppress(AMQPError, OSError):
        on_channel(url, publish_and_wait)
    return answered


def parameters(url: str) -> pika.URLParameters:
    """Of a client that does not wait for ever."""
    found = pika.URLParameters(url)
    found.socket_timeout = 3
    found.stack_timeout = 5
    found.blocked_connection_timeout = 10
    found.heartbeat = 10
    return found
