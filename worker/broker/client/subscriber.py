"""Receives events as they are published, on a queue of its own that goes with the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage

from worker.broker.client.client import FAILURES, lost, unless_closed
from worker.broker.connection import open_channel
from worker.broker.topology import Topology

Tell = Callable[[str, Mapping[str, Any], bytes], None]
"""Takes an event's type, headers and body."""


async def subscribe(connection: AbstractConnection, topology: Topology, tell: Tell) -> None:
    """Have every event that is published from now on told, for as long as the connection lasts.

    Nothing is acknowledged, and nothing is kept for later. Raises `Unreachable` when the broker
    goes away meanwhile.
    """

    async def on_message(message: DeliveredMessage) -> None:
        headers = message.header.properties.headers or {}
        tell(message.routing_key or "", headers, message.body)

    try:
        channel = await open_channel(connection)
        declared = await unless_closed(channel.queue_declare(exclusive=True))
        assert declared.queue is not None
        await unless_closed(channel.queue_bind(declared.queue, topology.events, "#"))
        await unless_closed(channel.basic_consume(declared.queue, on_message, no_ack=True))
    except FAILURES as error:
        raise lost(error) from error
