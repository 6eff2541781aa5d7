"""What tests use to talk to a worker: a client of its own, and workers to start and stop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar, overload

import aio_pika
import asyncpg
import pika
from aio_pika.abc import AbstractIncomingMessage

from dev.databases import dsn
from worker.service.service import Service
from worker.settings.settings import Settings

T = TypeVar("T")


@overload
async def eventually(
    look: Callable[[], Awaitable[T | None]], *, within: float = ..., every: float = ...
) -> T: ...


@overload
async def eventually(
    look: Callable[[], T | None], *, within: float = ..., every: float = ...
) -> T: ...


async def eventually(look: Callable[[], Any], *, within: float = 15, every: float = 0.02) -> Any:
    """Look again and again until what is found is true; fail when that takes too long."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; last found: {found!r}")
        await asyncio.sleep(every)


@dataclass(frozen=True)
class Message:
    """A message as a subscriber sees it."""

    routing_key: str
    body: bytes
    headers: Mapping[str, Any]
    properties: AbstractIncomingMessage

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def data(self) -> dict[str, Any]:
        found = self.json["data"]
        assert isinstance(found, dict)
        return found

    @cached_property  # asked of thousands of events, again and again
    def command_id(self) -> str | None:
        return self.json.get("commandid")


def creates(numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """A user for each number."""
    for number in numbers:
        data = {"username": f"{number}", "email": f"{number}@b.de"}
        yield {"type": "user.create", "data": data}


class Nowhere:
    """The source of deliveries that came from no broker."""

    closed = False

    def begin(self, tag: int) -> None: ...

    def defer(self, tag: int) -> None: ...

    def settle(self, tag: int) -> None: ...

    def reject(self, tag: int) -> None: ...


class Harness:
    """A publisher, a subscriber and an observer of the tables, for one namespace."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events: list[Message] = []
        self._stack = AsyncExitStack()
        self._subscribed = False

    async def __aenter__(self) -> Self:
        self.connection = await aio_pika.connect(self.settings.broker.urls[0])
        self._stack.push_async_callback(self.connection.close)
        self._stack.push_async_callback(self._delete_topology)
        self.channel = await self.connection.channel(on_return_raises=True)
        url = dsn(self.settings.database.url.get_secret_value())
        self.pool = await asyncpg.create_pool(url, min_size=0, max_size=4)
        self._stack.push_async_callback(self.pool.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _delete_topology(self) -> None:
        # On a connection of its own: the test may have broken the other.
        connection = await aio_pika.connect(self.settings.broker.urls[0])
        self._stack.push_async_callback(connection.close)
        channel = await connection.channel()
        for queue in ("commands", *self.partitions, "events", "dead-letters"):
            await channel.queue_delete(f"{self.settings.namespace}.{queue}")
        for exchange in ("commands", "partitions", "events"):
            await channel.exchange_delete(f"{self.settings.namespace}.{exchange}")

    @property
    def partitions(self) -> list[str]:
        """The partitions' queues, as `waiting` names them."""
        count = self.settings.partitions
        return [f"commands.{number}" for number in range(1, count + 1)] if count > 1 else []

    @asynccontextmanager
    async def worker(self, *, processes: int = 1, **changes: Any) -> AsyncIterator[Service]:
        """A worker in this process, ready; stopped in order at the end."""
        merged = self.settings.model_dump() | changes
        service = Service(Settings.model_validate(merged), processes=processes)
        running = asyncio.create_task(service.run())
        try:
            await eventually(lambda: running.done() or service.health.ready)
            if running.done():
                running.result()
            await self.subscribe()
            yield service
        finally:
            service.stop()
            await asyncio.wait_for(running, 30)

    async def subscribe(self) -> None:
        """Collect all events from now on into `events`."""
        if self._subscribed:
            return
        queue = await self.channel.declare_queue(exclusive=True)
        await queue.bind(f"{self.settings.namespace}.events", "#")

        async def collect(message: AbstractIncomingMessage) -> None:
            self.events.append(
                Message(message.routing_key or "", message.body, message.headers, message)
            )

        await queue.consume(collect, no_ack=True)
        self._subscribed = True
        self._queue = queue

    async def unsubscribe(self) -> None:
        """Collect no more."""
        await self._queue.delete(if_unused=False, if_empty=False)
        self._subscribed = False

    async def publish(
        self, body: bytes | str | Mapping[str, Any], *, routing_key: str = "any", **properties: Any
    ) -> None:
        """Publish one body, confirmed."""
        if isinstance(body, Mapping):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        message = aio_pika.Message(
            body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties
        )
        exchange = await self.channel.get_exchange(
            f"{self.settings.namespace}.commands", ensure=False
        )
        await exchange.publish(message, routing_key, mandatory=True)

    async def publish_plainly(self, body: bytes, **properties: Any) -> None:
        """Publish with pika, which, unlike aio-pika, adds no message_id of its own."""

        def publish() -> None:
            parameters = pika.URLParameters(self.settings.broker.urls[0])
            connection = pika.BlockingConnection(parameters)
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(
                f"{self.settings.namespace}.commands",
                "any",
                body,
                pika.BasicProperties(delivery_mode=2, **properties),
                mandatory=True,
            )
            connection.close()

        await asyncio.to_thread(publish)

    async def send(self, type_: str, **members: Any) -> str:
        """Publish a command; return its id."""
        id_ = members.pop("id", None) or uuid.uuid4().hex
        await self.publish({"id": id_, "type": type_, **members})
        return str(id_)

    async def send_all(self, commands: Iterable[Mapping[str, Any]]) -> list[str]:
        """Publish many, in this order, and wait once for all confirms; return their ids."""
        with_ids = [{"id": uuid.uuid4().hex, **command} for command in commands]
        await asyncio.gather(*(self.publish(command) for command in with_ids))
        return [str(command["id"]) for command in with_ids]

    async def event(self, command_id: str, *, number: int = 1, within: float = 15) -> Message:
        """The n-th event that answers a command."""

        def found() -> Message | None:
            mine = [event for event in self.events if event.command_id == command_id]
            return mine[number - 1] if len(mine) >= number else None

        message = await eventually(found, within=within)
        assert message is not None
        return message

    async def ask(self, type_: str, **members: Any) -> Message:
        """Publish a command and return its event."""
        return await self.event(await self.send(type_, **members))

    async def next_event(self, *, after: int, within: float = 15) -> Message:
        """The first event beyond a number of them."""
        return await eventually(
            lambda: self.events[after] if len(self.events) > after else None, within=within
        )

    async def dead_letters_so_far(self) -> list[Message]:
        """Take all dead letters that there are off their queue."""
        return await self.taken_from("dead-letters")

    async def taken_from(self, name: str) -> list[Message]:
        """Everything that one of the worker's queues holds; it is empty then."""
        queue = await self.channel.get_queue(f"{self.settings.namespace}.{name}")
        there = queue.declaration_result.message_count or 0
        taken: list[Message] = []

        async def collect(message: AbstractIncomingMessage) -> None:
            taken.append(Message(message.routing_key or "", message.body, message.headers, message))

        tag = await queue.consume(collect, no_ack=True)
        await eventually(lambda: len(taken) >= there)
        await queue.cancel(tag)
        return taken

    async def dead_letters(self, count: int, *, within: float = 15) -> list[Message]:
        """Take that many dead letters off their queue."""
        taken: list[Message] = []

        async def take() -> bool:
            taken.extend(await self.dead_letters_so_far())
            return len(taken) >= count

        await eventually(take, within=within)
        assert len(taken) == count
        return taken

    async def waiting(self, queue: str = "commands") -> int:
        """Messages that are ready in one of the worker's queues."""
        channel = await self.connection.channel()
        found = await channel.declare_queue(f"{self.settings.namespace}.{queue}", passive=True)
        await channel.close()
        return found.declaration_result.message_count or 0

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """What the database holds."""
        return [dict(row) for row in await self.pool.fetch(query, *arguments)]
