"""Asks a worker queries, as a program of somebody else's would."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.support.harness import Harness


class Asker:
    """A queue of its own that answers come to."""

    def __init__(self, harness: Harness, queue: str) -> None:
        self.queue = queue
        self._harness = harness
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def event(self, type_: str, data: Any = None, **members: Any) -> dict[str, Any]:
        """Send a query and wait for the event that answers it."""
        id_ = uuid.uuid4().hex
        return await self.send(json.dumps({"id": id_, "type": type_, "data": data, **members}), id_)

    async def send(self, body: str, id_: str, **properties: Any) -> dict[str, Any]:
        answer = self._answers[id_] = asyncio.get_running_loop().create_future()
        await self._harness.publish(body, correlation_id=id_, reply_to=self.queue, **properties)
        async with asyncio.timeout(20):
            return cast(dict[str, Any], await answer)

    async def __call__(self, type_: str, data: Any = None, **members: Any) -> dict[str, Any]:
        """The data of the answer, which must not be a problem."""
        event = await self.event(type_, data, **members)
        assert event["type"] == f"{type_}.result", event
        found = event["data"]
        assert isinstance(found, dict)
        return found

    async def problem(self, type_: str, data: Any = None, **members: Any) -> dict[str, Any]:
        """The problem that the answer is."""
        event = await self.event(type_, data, **members)
        assert event["type"] != f"{type_}.result", event
        found = event["data"]
        assert isinstance(found, dict)
        return found

    def take(self, message: AbstractIncomingMessage) -> None:
        answer = self._answers.pop(str(message.correlation_id), None)
        if answer is not None and not answer.done():
            answer.set_result(json.loads(message.body))


@asynccontextmanager
async def asking(harness: Harness) -> AsyncIterator[Asker]:
    """Somebody who asks; the queue goes with the connection."""
    connection = await aio_pika.connect(harness.settings.broker.urls[0])
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        asker = Asker(harness, queue.name)

        async def take(message: AbstractIncomingMessage) -> None:
            asker.take(message)

        await queue.consume(take, no_ack=True)
        yield asker
