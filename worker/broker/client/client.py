"""Publishes for a command line: once, confirmed, and with a sentence where that fails.

The worker's own publisher waits and tries again for ever; a person wants to be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)

from worker.broker.connection import account_of, closed, connect, is_blocked, open_channel
from worker.broker.errors import lacks_right
from worker.broker.protocol import properties
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured, TimedOut, Unreachable
from worker.core.messages import Publication
from worker.core.tasks import is_cancelled
from worker.settings.settings import BrokerSettings

T = TypeVar("T")

REPLY_TO = "amq.rabbitmq.reply-to"
"""RabbitMQ's pseudo-queue: answers come straight to the channel that asked, nothing is declared."""

FAILURES = CONNECTION_EXCEPTIONS
"""What a channel raises once the broker, or the way to it, is gone."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command."""

    body: bytes
    headers: Mapping[str, Any]


class Client:
    """One channel to publish on. Messages leave in the order in which `send` is called."""

    def __init__(
        self,
        connection: AbstractConnection,
        channel: Channel,
        confirm_timeout_seconds: float,
        user_id: str | None,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._user_id = user_id
        # By correlation id. The same command may be sent twice, and is then answered twice.
        self._waiting: dict[str, list[asyncio.Future[Reply]]] = {}
        self._listening = False

    async def send(
        self,
        publication: Publication,
        *,
        reply_to: str | None = None,
        expires_seconds: float | None = None,
    ) -> None:
        """Publish one message; return when the broker has stored it.

        With `copy_of`, its properties are sent as they are. Raises `Misconfigured` when no
        queue takes the message, `Unreachable` when the broker does not confirm it.
        """
        own = publication.copy_of
        if own is None:
            own = properties.of(publication)
            own.reply_to = reply_to
            if expires_seconds is not None:
                own.expiration = str(max(1, round(expires_seconds * 1000)))
        # Who sends it, be it for the second time: the broker knows no other.
        own.user_id = self._user_id
        try:
            await unless_closed(
                self._channel.basic_publish(
                    publication.body,
                    exchange=publication.exchange,
                    routing_key=publication.routing_key,
                    properties=own,
                    mandatory=True,
                    timeout=self._confirm_timeout_seconds,
                    wait=False,
                )
            )
        except PublishError as error:
            where = publication.exchange or publication.routing_key
            raise Misconfigured(
                f"no queue takes what is published to {where!r}: its binding is missing. "
                "Run `worker run` once, which declares it"
            ) from error
        except DeliveryError as error:
            raise Unreachable(
                "RabbitMQ refuses the message: the queue is full, or has lost its leader. "
                "Let the workers catch up, or see WORKER_BROKER__COMMANDS_MAX_BYTES"
            ) from error
        except TimeoutError as error:
            raise await self._unconfirmed() from error
        except FAILURES as error:
            raise lost(error) from error

    async def ask(
        self, publication: Publication, *, timeout_seconds: float, expires: bool = False
    ) -> Reply:
        """Publish a command and wait for the copy of its event that answers it.

        One that `expires` is dropped by the broker when nobody waits any more.

        Raises as `send` does, and `TimedOut`.
        """
        await self.listen()
        correlation = publication.correlation_id or ""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(correlation, []).append(answer)
        ending = asyncio.ensure_future(closed(self._connection, self._channel))
        try:
            seconds = timeout_seconds if expires else None
            await self.send(publication, reply_to=REPLY_TO, expires_seconds=seconds)
            either: set[asyncio.Future[Any]] = {answer, ending}
            await asyncio.wait(either, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if ending.done():
                raise Unreachable(
                    f"The connection to RabbitMQ was lost ({ending.result()}) while waiting for "
                    "the answer; the command itself has been published"
                )
            raise TimedOut(
                f"no answer within {timeout_seconds:g} s"
                f"{'' if expires else '; the command stays in the queue'}. "
                "Is a worker running (`worker run`)?"
            )
        finally:
            ending.cancel()
            self._waiting[correlation].remove(answer)
            if not self._waiting[correlation]:
                del self._waiting[correlation]

    async def listen(self) -> None:
        """Be ready for answers. `ask` sees to it; several at once need it done before."""
        if self._listening:
            return

        async def on_message(message: DeliveredMessage) -> None:
            properties = message.header.properties
            waiting = self._waiting.get(str(properties.correlation_id), ())
            first = next((answer for answer in waiting if not answer.done()), None)
            if first is not None:
                first.set_result(Reply(message.body, properties.headers or {}))

        try:
            await unless_closed(self._channel.basic_consume(REPLY_TO, on_message, no_ack=True))
        except FAILURES as error:
            raise lost(error) from error
        self._listening = True

    async def _unconfirmed(self) -> Unreachable:
        alarm = await is_blocked(self._connection)
        return Unreachable(
            f"RabbitMQ did not confirm the message within {self._confirm_timeout_seconds:g} s"
            + (": it takes none, its memory or disk alarm is set" if alarm else "")
        )


@asynccontextmanager
async def open_sender(
    settings: BrokerSettings, topology: Topology, name: str
) -> AsyncIterator[Client]:
    """A sender on a connection of its own, with somewhere to send commands to."""
    async with connect(settings, name) as connection:
        # The queue too: somebody else may just be declaring one after the other.
        await ensure_exists(
            connection, topology, exchange=topology.commands, queue=topology.commands
        )
        yield await sender_on(connection, settings)


async def sender_on(connection: AbstractConnection, settings: BrokerSettings) -> Client:
    """A sender on a connection that is shared with others."""
    channel = await open_channel(connection)
    user_id = account_of(connection) if settings.tell_user_id else None
    return Client(connection, channel, settings.confirm_timeout_seconds, user_id)


async def ensure_exists(
    connection: AbstractConnection,
    topology: Topology,
    *,
    exchange: str | None = None,
    queue: str | None = None,
) -> None:
    """Declare the topology if this exchange or queue is missing.

    What exists is left as it is, whatever its arguments: comparing them is the worker's business.
    What the account may not see is taken to exist: to use it is another right, and asked for next.
    """
    try:
        try:
            async with connection.channel() as channel:
                if exchange is not None:
                    await channel.get_exchange(exchange, ensure=True)
                if queue is not None:
                    await channel.get_queue(queue, ensure=True)
        except ChannelNotFoundEntity:
            await topology.ensure(connection)
        except ChannelAccessRefused:
            return
    except FAILURES as error:
        raise lost(error) from error


async def remove(connection: AbstractConnection, topology: Topology) -> None:
    """Delete every queue and exchange of the topology, with all that they hold."""
    async with connection.channel() as channel:
        for queue in topology.queues:
            await channel.queue_delete(queue)
        for exchange in topology.exchanges:
            await channel.exchange_delete(exchange)


async def unless_closed(work: Awaitable[T]) -> T:
    """Wait for work on a channel; a channel that ends shows as an error, not as a cancellation."""
    try:
        return await work
    except asyncio.CancelledError as cancelled:  # aiormq cancels what waits on one that ends
        if is_cancelled():
            raise
        raise ConnectionError("the channel was closed") from cancelled


def lost(error: BaseException) -> Unreachable | Misconfigured:
    """One sentence for a broker that went away, or ended the channel, in between."""
    if isinstance(error, ChannelAccessRefused):
        return lacks_right(error)
    reason = str(error) or type(error).__name__
    return Unreachable(f"RabbitMQ ended the conversation: {reason}")
