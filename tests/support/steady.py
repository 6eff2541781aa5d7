"""A client as it should be: it publishes without end, and again what was not confirmed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count, cycle
from typing import Any

import aio_pika
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError

CONFIRM_SECONDS = 5
PAUSE_SECONDS = 0.01


class _Connection(aio_pika.Connection):
    """One that, when it could not be made, is not closed by the garbage collector in any thread."""

    def __del__(self) -> None:
        pass


class Steady:
    """Sends one `user.create` after the other, each until some node has confirmed it.

    `confirmed` are the ids, in the order of their confirms. What was sent twice, since its first
    confirm was lost, has the same id.
    """

    def __init__(self, urls: Sequence[str], namespace: str) -> None:
        self.confirmed: list[str] = []
        self._urls = cycle(urls)
        self._namespace = namespace

    async def after(self, count: int) -> str:
        """The id of a command that is sent after the next `count` ones; it is confirmed."""
        goal = len(self.confirmed) + count
        while len(self.confirmed) <= goal:  # noqa: ASYNC110 - a test's own clock
            await asyncio.sleep(PAUSE_SECONDS)
        return self.confirmed[goal]

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send for as long as the block lasts; what is on its way at its end is confirmed, too."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._send_until(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def _send_until(self, stop: asyncio.Event) -> None:
        numbers = count()
        number = next(numbers)
        while not stop.is_set():
            with suppress(DeliveryError, TimeoutError, *CONNECTION_EXCEPTIONS):
                async with self._exchange() as exchange:
                    while not stop.is_set():
                        await self._send(exchange, number)
                        number = next(numbers)
                        await asyncio.sleep(PAUSE_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[AbstractExchange]:
        url = next(self._urls)
        connection = await aio_pika.connect(
            url, timeout=CONFIRM_SECONDS, connection_class=_Connection
        )
        try:
            channel = await connection.channel(on_return_raises=True)
            yield await channel.get_exchange(f"{self._namespace}.commands", ensure=False)
        finally:
            with suppress(TimeoutError, *CONNECTION_EXCEPTIONS):
                await asyncio.wait_for(connection.close(), 2)

    async def _send(self, exchange: AbstractExchange, number: int) -> None:
        id_ = f"steady-{number}"
        body: dict[str, Any] = {
            "id": id_,
            "type": "user.create",
            "data": {"username": id_, "email": f"{id_}@example.com"},
        }
        message = aio_pika.Message(
            json.dumps(body).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await exchange.publish(message, "any", mandatory=True, timeout=CONFIRM_SECONDS)
        self.confirmed.append(id_)
