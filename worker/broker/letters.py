"""Reads the dead letters without taking them away, and takes away those that are settled."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic

from worker.broker.connection import connect, open_channel
from worker.broker.properties import MAX_PROPERTIES_BYTES, PERSISTENT
from worker.broker.routing import routing_key_of
from worker.broker.sender import (
    FAILURES,
    REPLY_TO,
    Sender,
    ensure_exists,
    lost,
    sender_on,
    unless_closed,
)
from worker.broker.topology import Topology
from worker.broker.wire import UNREADABLE_HEADER
from worker.errors import Unreachable
from worker.messages import Publication
from worker.settings import BrokerSettings

_ADDED = frozenset(
    {
        # by the worker, see answers.py
        "x-code",
        "x-detail",
        "x-attempts",
        "x-first-time",
        "x-last-time",
        "x-event-id",
        "x-command-id",
        "x-command-type",
        "x-user-id",
        UNREADABLE_HEADER,
        # by the broker
        "x-death",
        "x-delivery-count",
        "x-acquired-count",
        # these would send copies to other queues
        "CC",
        "BCC",
    }
)
_ADDED_PREFIXES = ("x-first-death-", "x-last-death-")


MOST_READ = 10_000
"""Letters that one command looks at to find some of them; all are held until it ends."""


@dataclass(frozen=True)
class Letter:
    """One dead letter; `number` is its place in the queue, from 1."""

    number: int
    tag: int
    body: bytes
    properties: Basic.Properties

    @property
    def headers(self) -> dict[str, Any]:
        """All AMQP headers, those that tell of its death included."""
        return dict(self.properties.headers or {})

    @property
    def other_properties(self) -> dict[str, Any]:
        """All AMQP properties that are set, but the headers."""
        return {
            name: value
            for name, value in self.properties
            if value is not None and name != "headers"
        }

    @cached_property
    def members(self) -> dict[str, Any] | None:
        """The members of the body, if it is a JSON object."""
        try:
            members = json.loads(self.body.decode())
        except (ValueError, RecursionError):
            return None
        return members if isinstance(members, dict) else None

    @property
    def command_id(self) -> str | None:
        """The id of the command, as far as it can be told."""
        if "x-code" in self.headers:
            # The worker has looked. A `message_id` may have been made up by the client library.
            return _first_text(self.headers.get("x-command-id"))
        return _first_text((self.members or {}).get("id"), self.properties.message_id)

    @property
    def command_type(self) -> str | None:
        """The type that the command claims."""
        return _first_text(
            self.headers.get("x-command-type"),
            (self.members or {}).get("type"),
            self.properties.message_type,
        )

    @property
    def code(self) -> str:
        """Why it is here: the worker's code, or the broker's reason such as `delivery-limit`."""
        code = _first_text(self.headers.get("x-code"), self._death.get("reason"))
        return (code or "unknown").replace("delivery_limit", "delivery-limit")

    @property
    def detail(self) -> str:
        """Why it is here, in words."""
        detail = _first_text(self.headers.get("x-detail"))
        if detail is None and self.code == "delivery-limit":
            return "delivered too often without an answer; set aside by RabbitMQ"
        return detail or ""

    @property
    def time(self) -> str | None:
        """When it came here, in RFC 3339."""
        time = self._death.get("time")
        at = time.isoformat().replace("+00:00", "Z") if isinstance(time, datetime) else None
        return _first_text(self.headers.get("x-last-time"), at)

    @property
    def _death(self) -> dict[str, Any]:
        deaths = self.headers.get("x-death")
        latest = deaths[0] if isinstance(deaths, list) and deaths else None
        return latest if isinstance(latest, dict) else {}

    def revived(
        self, topology: Topology, body: bytes, key: str | None, headers: dict[str, Any]
    ) -> Publication:
        """The command as it was sent, without what tells of its death, and with these headers.

        `key` is the ordering key of what is in the body.
        """
        properties = copy.copy(self.properties)
        properties.headers = {
            name: value
            for name, value in self.headers.items()
            if name not in _ADDED and not name.startswith(_ADDED_PREFIXES)
        } | headers
        properties.delivery_mode = PERSISTENT
        for name in ("expiration", "user_id", "cluster_id"):
            # These could expire it, or have the broker refuse it.
            setattr(properties, name, None)
        if str(properties.reply_to or "").startswith(REPLY_TO):
            properties.reply_to = None  # whoever asked that way waits no more
        try:
            fits = len(properties.marshal()) < MAX_PROPERTIES_BYTES
        except (ValueError, TypeError, struct.error, OverflowError, RecursionError):
            fits = False
        if not fits:
            # What could be decoded may still not be written again; the body is what matters.
            properties = Basic.Properties(delivery_mode=PERSISTENT, headers=dict(headers))
        return Publication(
            exchange=topology.commands,
            routing_key=routing_key_of(key, self.command_type or ""),
            body=body,
            copy_of=properties,
        )


class DeadLetters:
    """The dead-letter queue, held open: what is read and not settled goes back in the end."""

    def __init__(self, topology: Topology, channel: Channel, sender: Sender, count: int) -> None:
        self.topology = topology
        self.sender = sender
        self.count = count
        """How many there were at the beginning; those that come meanwhile are not read."""
        self._channel = channel
        self._held: list[int] = []
        self._taken = 0

    async def read(self, most: int) -> AsyncGenerator[Letter]:
        """The letters from the oldest on, at most that many; each can be read once."""
        for number in range(1, min(most, self.count) + 1):
            message = await self._take()
            if message is None:
                return
            assert message.delivery_tag is not None
            yield Letter(number, message.delivery_tag, message.body, message.header.properties)

    async def _take(self) -> DeliveredMessage | None:
        try:
            message = await unless_closed(self._channel.basic_get(self.topology.dead_letters))
        except FAILURES as error:
            raise lost(error) from error
        if message.delivery_tag is None:
            return None
        self._taken += 1
        self._held.append(message.delivery_tag)
        return message

    async def settle(self, letter: Letter) -> None:
        """Take the letter away, for good."""
        try:
            await self._channel.basic_ack(letter.tag)
        except FAILURES as error:
            raise lost(error) from error
        self._held.remove(letter.tag)

    async def give_back(self) -> None:
        """Return everything that was read and not settled, after reading the rest.

        What is given back goes before what was never taken out, and behind what was given back
        before. So letters keep their places, and their numbers, only where each look takes them
        all (or, of very many, the same number).

        By one `nack`: since RabbitMQ 4.3 that does not count as a delivery that failed, while a
        `reject`, or a channel that just closes, does.
        """
        if self._held:
            while self._taken < min(self.count, MOST_READ) and await self._take():
                pass
            await self._channel.basic_nack(self._held[-1], multiple=True, requeue=True)
            self._held.clear()


@asynccontextmanager
async def open_dead_letters(
    settings: BrokerSettings, topology: Topology
) -> AsyncIterator[DeadLetters]:
    """The dead letters of the topology, and a sender on the same connection.

    Until the end nobody else sees what was read; should this process die, the broker returns it.
    """
    name = topology.dead_letters
    async with connect(settings, name) as connection:
        await ensure_exists(connection, topology, queue=name)
        try:
            channel = await open_channel(connection)
            declared = await channel.queue_declare(name, passive=True)
            sender = await sender_on(connection, settings)
        except FAILURES as error:
            raise lost(error) from error
        letters = DeadLetters(topology, channel, sender, declared.message_count or 0)
        try:
            yield letters
        finally:
            with suppress(*FAILURES, Unreachable):  # a broker that is gone has taken them back
                await letters.give_back()
                await channel.close()


def _first_text(*candidates: object) -> str | None:
    return next((value for value in candidates if isinstance(value, str) and value), None)
