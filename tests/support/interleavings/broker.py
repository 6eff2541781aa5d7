"""A stand-in for RabbitMQ, at the level of a channel's methods.

One queue of commands as a quorum queue is one: what is returned is delivered first, in its order,
and counted. Events go to a log, dead letters to a list. `Channel` is what aiormq's class is to the
worker, as far as it is used.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count, takewhile
from typing import Any, cast

import pamqp.frame
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import (
    AMQPConnectionError,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from tests.support.interleavings.links import Link
from tests.support.interleavings.schedule import Move, World
from worker.broker.connection import _Connection
from worker.broker.protocol.frame_reader import ConfirmSink, Intake


@dataclass(eq=False)
class Message:
    """A command in the queue."""

    position: int
    body: bytes
    returns: int = 0
    acknowledged: bool = False

    def __str__(self) -> str:
        return f"message {self.position}" + f", the {self.returns + 1}th time" * bool(self.returns)


@dataclass(frozen=True)
class Published:
    """A message that the broker has taken."""

    routing_key: str
    body: bytes
    headers: Mapping[str, Any]


class Broker:
    """The server: the queue, what was published, and who is connected.

    `on_event` and `on_ack` are told of each; `refusals` is how many of the next messages it will
    not take, `events_bound` whether events find a queue.
    """

    def __init__(self, world: World, *, commands: str, events: str, dead_letters: str) -> None:
        self._world = world
        self._commands, self._events, self._dead_letters = commands, events, dead_letters
        self._positions = count()
        self._returned: deque[Message] = deque()
        self._ready: deque[Message] = deque()
        self.links: list[Connection] = []
        self.events: list[Published] = []
        self.dead_letters: list[Published] = []
        self.events_bound = True
        self.refusals = 0
        self.on_event: Callable[[Published], None] = lambda _: None
        self.on_ack: Callable[[Message], None] = lambda _: None
        self.on_deliver: Callable[[Message, ServerChannel], None] = lambda *_: None

    def moves(self) -> Iterator[Move]:
        """What can happen next: on each link, a delivery, a confirm."""
        for connection in self.links:
            yield from connection.link.moves()
            for channel in connection.channels:
                yield from channel.moves()

    def put(self, body: bytes) -> None:
        """A command is published, and confirmed."""
        self._ready.append(Message(next(self._positions), body))

    def take(self) -> Message | None:
        """The next message to be delivered."""
        for queue in (self._returned, self._ready):
            if queue:
                return queue.popleft()
        return None

    def give_back(self, messages: list[Message]) -> None:
        """They were delivered, and are to be delivered again."""
        for message in sorted(messages, key=lambda each: each.position):
            message.returns += 1
            self._world.tell("returned", str(message))
            self._returned.append(message)

    @property
    def waiting(self) -> int:
        """Commands that can be delivered."""
        return len(self._returned) + len(self._ready)

    @property
    def unacknowledged(self) -> int:
        """Commands that are delivered."""
        return sum(
            len(channel.unacked) for connection in self.links for channel in connection.channels
        )

    def ensure(self) -> None:
        """The topology is declared."""
        self.events_bound = True

    def publish(self, exchange: str, routing_key: str, header: ContentHeader, body: bytes) -> bool:
        """Take a message; return whether a queue took it. Raises `DeliveryError` to refuse it."""
        if self.refusals:
            self.refusals -= 1
            raise DeliveryError(None, Basic.Nack())
        published = Published(routing_key, body, header.properties.headers or {})
        if exchange == self._events and self.events_bound:
            self.events.append(published)
            self.on_event(published)
        elif not exchange and routing_key == self._dead_letters:
            self.dead_letters.append(published)
        elif not exchange and routing_key == self._commands:
            self.put(body)
        else:
            return False
        return True


@dataclass(eq=False)
class ServerChannel:
    """The server's side of a channel."""

    broker: Broker
    link: Link
    client: Channel
    world: World
    unacked: dict[int, Message] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    """Unacknowledged deliveries of each consumer; a prefetch bounds these."""
    consumer_of: dict[int, str] = field(default_factory=dict)
    consumers: dict[str, int] = field(default_factory=dict)
    prefetch: int = 0
    unconfirmed: list[tuple[int, bool]] = field(default_factory=list)
    tags: Iterator[int] = field(default_factory=lambda: count(1))
    published: Iterator[int] = field(default_factory=lambda: count(1))

    def moves(self) -> Iterator[Move]:
        if self.link.server_knows:
            return
        if self.broker.waiting:
            for tag, prefetch in self.consumers.items():
                if not prefetch or self.held[tag] < prefetch:
                    yield lambda tag=tag: self.deliver(tag)  # type: ignore[misc]
        if self.unconfirmed:
            yield self.confirm

    def consume(self, tag: str) -> None:
        self.consumers[tag] = self.prefetch

    def deliver(self, consumer: str) -> None:
        message = self.broker.take()
        assert message is not None
        self.broker.on_deliver(message, self)
        tag = next(self.tags)
        self.unacked[tag] = message
        self.consumer_of[tag] = consumer
        self.held[consumer] += 1
        self.world.tell("delivered", str(message))
        client = self.client
        self.link.reply(lambda: client.delivered(consumer, tag, message))

    def cancel(self, tag: str) -> None:
        self.consumers.pop(tag, None)

    def cancel_by_itself(self) -> None:
        """As when the queue is deleted, or its leader lost."""
        for tag in list(self.consumers):
            self.cancel(tag)
            self.link.reply(lambda tag=tag: self.client.cancelled(tag))  # type: ignore[misc]

    def ack(self, tag: int, multiple: bool) -> None:
        for message in self._settle(tag, multiple):
            message.acknowledged = True
            self.broker.on_ack(message)

    def _settle(self, tag: int, multiple: bool) -> list[Message]:
        tags = [each for each in self.unacked if each <= tag] if multiple else [tag]
        if tag not in self.unacked and not (multiple and tags):
            self.close(ChannelPreconditionFailed(f"unknown delivery tag {tag}"))
            return []
        for each in tags:
            self.held[self.consumer_of.pop(each)] -= 1
        return [self.unacked.pop(each) for each in tags]

    def publish(self, publish: Basic.Publish, header: ContentHeader, body: bytes) -> None:
        tag = next(self.published)
        try:
            routed = self.broker.publish(publish.exchange, publish.routing_key, header, body)
        except DeliveryError:
            self.unconfirmed.append((tag, False))
            return
        if not routed and publish.mandatory:
            frame = Basic.Return(312, "NO_ROUTE", publish.exchange, publish.routing_key)
            self.link.reply(lambda: self.client.returned(frame, header, body))
        self.unconfirmed.append((tag, True))

    def confirm(self) -> None:
        """Answer for one message, in whatever order, or for the first few together."""
        how = self.world.choices.below(4)
        number = self.world.choices.below(len(self.unconfirmed)) if len(self.unconfirmed) > 1 else 0
        if how:
            tag, taken = self.unconfirmed.pop(number)
            self.link.reply(lambda: self.client.confirmed(tag, False, taken))
            return
        taken = self.unconfirmed[0][1]
        # One frame says the same of all that it is about.
        alike = len(list(takewhile(lambda each: each[1] is taken, self.unconfirmed)))
        number = alike if self.world.choices.used_up else min(alike, number + 1)
        # `multiple` says: all up to this one that have had no answer yet.
        last = self.unconfirmed[number - 1][0]
        del self.unconfirmed[:number]
        self.link.reply(lambda: self.client.confirmed(last, True, taken))

    def close(self, reason: Exception | None = None) -> None:
        """Its consumers end, and what is not acknowledged is returned."""
        self.consumers.clear()
        self.unconfirmed.clear()
        self.broker.give_back(list(self.unacked.values()))
        self.unacked.clear()
        if reason is not None:
            self.link.reply(lambda: self.client.closed_by_server(reason))


class Connection(_Connection):
    """The client's side of a connection, as far as the worker uses aio-pika's."""

    def __init__(self, broker: Broker, world: World, name: str) -> None:
        self.name = name
        self.broker = broker
        self.world = world
        self.channels: list[ServerChannel] = []
        self.factory = cast(Any, self)
        self.intake = Intake(cast(asyncio.StreamReader, None))
        self.link = Link(world, _lost, self._gone)
        self._closing = self.link.future()
        self.transport = cast(Any, self)
        self.connection = cast(Any, self)
        broker.links.append(self)

    def _gone(self) -> None:
        for channel in self.channels:
            channel.close()
        self.broker.links.remove(self)

    @property
    def closing(self) -> asyncio.Future[Any]:
        """Done when the connection ends."""
        return _observer(self._closing)

    async def ready(self) -> None:
        """At once: the stand-in has no alarms."""

    def channel(self, *_: object, **__: object) -> Any:
        """A channel that is yet to be opened."""
        return _Unopened(self)

    async def close(self, _: object = None) -> None:
        """Take leave."""
        self.link.cut(arriving=self.link.under_way)
        self.link.notice_now()


class _Unopened:
    """aio-pika's wrapper around aiormq's channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def initialize(self) -> None:
        self._channel = Channel(self._connection)
        await self._channel.open()

    async def get_underlay_channel(self) -> Channel:
        return self._channel


class Channel:
    """The client's side of a channel, as far as the worker uses aiormq's."""

    max_content_size = 131_064

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number = 1 + len(connection.channels)
        self.on_consumer_cancel_callbacks: set[Callable[[Any], Any]] = set()
        self.write_queue = self
        self._link = connection.link
        self._server = ServerChannel(connection.broker, self._link, self, connection.world)
        self._closing = self._link.future()
        self._callbacks: dict[str, Callable[[DeliveredMessage], Any]] = {}
        self._publishes: dict[int, asyncio.Future[Any]] = {}
        self._ids: dict[str, int] = {}
        self._tags = count(1)

    async def open(self) -> None:
        await self._ask(lambda: self.connection.channels.append(self._server))

    @property
    def closing(self) -> asyncio.Future[Any]:
        return _observer(self._closing)

    @property
    def is_closed(self) -> bool:
        return self._closing.done()

    def create_future(self) -> asyncio.Future[None]:
        future = self._link.future()
        error = ChannelInvalidStateError("closed")
        self._closing.add_done_callback(lambda _: _fail(future, error))
        return future

    async def _ask(self, serve: Callable[[], Any]) -> Any:
        if self.is_closed:
            raise ChannelInvalidStateError("closed")
        return await self._link.ask(serve)

    def _send(self, step: Move) -> None:
        if self.is_closed:
            raise ChannelInvalidStateError("closed")
        self._link.send(step)

    async def basic_qos(self, *, prefetch_count: int) -> None:
        def serve() -> None:
            self._server.prefetch = prefetch_count

        await self._ask(serve)

    async def basic_consume(self, queue: str, callback: Any, *, consumer_tag: str) -> None:
        self._callbacks[consumer_tag] = callback
        await self._ask(lambda: self._server.consume(consumer_tag))

    async def basic_cancel(self, consumer_tag: str) -> None:
        await self._ask(lambda: self._server.cancel(consumer_tag))

    async def basic_ack(self, tag: int, multiple: bool = False, wait: bool = True) -> None:
        self._send(lambda: self._server.ack(tag, multiple))

    async def basic_publish(self, body: bytes, **options: Any) -> None:
        properties: Basic.Properties = options["properties"]
        publish = Basic.Publish(
            exchange=options["exchange"],
            routing_key=options["routing_key"],
            mandatory=options["mandatory"],
        )
        header = ContentHeader(body_size=len(body), properties=properties)
        tag = next(self._tags)
        answer = self.create_future()
        self._publishes[tag] = answer
        if properties.message_id:
            self._ids[properties.message_id] = tag
        self._send(lambda: self._server.publish(publish, header, body))
        await answer

    async def put(self, frame: ChannelFrame) -> None:
        """The writer's queue: frames of `basic.publish`, in one piece."""
        for publish, header, body in _messages(frame.payload):
            self._send(lambda p=publish, h=header, b=body: self._server.publish(p, h, b))  # type: ignore[misc]

    async def close(self) -> None:
        if not self.is_closed:
            await self._ask(self._server.close)
            if not self._closing.done():
                self._closing.set_result(None)

    def delivered(self, consumer: str, tag: int, message: Message) -> None:
        """A delivery arrives."""
        header = _header(message.returns)
        sink = self.connection.intake.sinks.get((self.number, consumer.encode()))
        if sink is not None:
            sink(tag, bool(message.returns), b"", header, message.body)
            return
        frame = Basic.Deliver(consumer, tag, bool(message.returns), "", "")
        content = ContentHeader(body_size=len(message.body))
        content.unmarshal(header)
        came = DeliveredMessage(frame, content, message.body, cast(Any, self))
        self.connection.world.loop.create_task(self._callbacks[consumer](came))

    def cancelled(self, consumer: str) -> None:
        """The broker has ended a consumer."""
        for callback in self.on_consumer_cancel_callbacks:
            callback(Basic.Cancel(consumer))

    def confirmed(self, tag: int, multiple: bool, positive: bool) -> None:
        """The broker answers for a message, or for all up to it."""
        answers = self._answers
        if answers is not None:
            answers.confirmed(tag, multiple, positive)
            return
        for each in [each for each in self._publishes if each == tag or (multiple and each < tag)]:
            answer = self._publishes.pop(each)
            if answer.done():
                continue
            if positive:
                answer.set_result(None)
            else:
                answer.set_exception(DeliveryError(None, Basic.Nack(tag, multiple)))

    def returned(self, frame: Basic.Return, header: ContentHeader, body: bytes) -> None:
        """No queue took a message; its confirm follows."""
        answers = self._answers
        if answers is not None:
            answers.returned(pamqp.frame.marshal(frame, self.number), header.marshal())
            return
        answer = self._publishes[self._ids[header.properties.message_id or ""]]
        if not answer.done():
            message = DeliveredMessage(frame, header, body, cast(Any, self))
            answer.set_exception(PublishError(message, frame))

    def closed_by_server(self, reason: Exception) -> None:
        """The broker has closed the channel."""
        _fail(self._closing, reason)

    @property
    def _answers(self) -> ConfirmSink | None:
        return self.connection.intake.answers.get(self.number)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever was to wait for it may be gone


def _lost() -> Exception:
    return AMQPConnectionError("the link was cut")


def _observer(closing: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """A future of its own for each who waits, as aiormq gives it."""
    future = closing.get_loop().create_future()

    def on_close(source: asyncio.Future[Any]) -> None:
        if future.done():
            return
        error = None if source.cancelled() else source.exception()
        if error is None:
            future.set_result(None)
        else:
            _fail(future, error)

    closing.add_done_callback(on_close)
    return future


@cache
def _header(returns: int) -> bytes:
    """The content header of a delivery: how often it has been returned, when it has been."""
    headers: FieldTable = {"x-delivery-count": returns} if returns else {}
    return ContentHeader(properties=Basic.Properties(headers=headers)).marshal()


def _messages(piece: bytes) -> Iterator[tuple[Basic.Publish, ContentHeader, bytes]]:
    publish: Any = None
    header: Any = None
    body = b""
    while piece:
        used, _, frame = pamqp.frame.unmarshal(piece)
        piece = piece[used:]
        match frame:
            case Basic.Publish():
                publish = frame
            case ContentHeader():
                header, body = frame, b""
            case ContentBody():
                body += frame.value
                if len(body) == header.body_size:
                    yield publish, header, body
