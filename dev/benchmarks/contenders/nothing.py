"""The do-nothing handler: aio-pika reads a command, publishes an event, acknowledges."""

from __future__ import annotations

import json

import uvloop
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from dev.benchmarks.contenders.consume import consume, persistent
from dev.benchmarks.contenders.event import TYPE, event_bytes

PREFETCH = 300  # the best of 20, 100, 300 and 1000, tried on 2 cores


async def handle(message: AbstractIncomingMessage, events: AbstractExchange) -> None:
    command = json.loads(message.body)
    await events.publish(persistent(event_bytes(command, command["data"])), TYPE)


if __name__ == "__main__":
    uvloop.run(consume(handle, prefetch=PREFETCH))
