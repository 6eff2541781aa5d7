"""Supervised connections: connect, serve, notice the end, connect again.

The library's own robust connection is not used: it reconnects at a constant interval, keeps quiet
about consumers that the broker cancelled, and cancels what runs inside its callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.channel import Channel
from aiormq.connection import exception_by_code
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    InvalidFrameError,
)
from yarl import URL

from worker.broker.errors import explain, lacks_right, none_of
from worker.broker.nodes import Nodes
from worker.broker.protocol.frame_reader import Intake, TolerantTransport
from worker.core.backoff import RECONNECT
from worker.core.errors import Misconfigured, Unreachable
from worker.core.tasks import is_cancelled
from worker.settings.settings import BrokerSettings
from worker.telemetry.readiness import Component

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_SECONDS = 3

# The last: what aiormq raises where the other side hangs up before it has said anything.
FAILURES = (AMQPError, OSError, TimeoutError, asyncio.IncompleteReadError, StopAsyncIteration)
"""Of an attempt to connect."""

Serve = Callable[[AbstractConnection], Awaitable[None]]
"""Uses a connection until it ends; returns or raises then."""


class _Connection(aio_pika.Connection):
    """A plain connection whose reader survives properties that cannot be decoded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kwargs["transport_factory"] = self.factory = TolerantTransport()

    async def connect(self, timeout: float | None = None) -> None:
        """Connect as the library does, and say why the broker would not."""
        try:
            await super().connect(timeout)
        except InvalidFrameError as error:
            # aiormq only says that another frame was expected than the farewell that came.
            farewell = self.factory.intake.farewell
            raise (exception_by_code(farewell) if farewell else error) from error

    def __del__(self) -> None:
        """Nothing: `connect` closes what it opened.

        The library's would begin to close an attempt that failed, in whatever loop runs by then,
        or in none.
        """


@asynccontextmanager
async def connect(
    settings: BrokerSettings, name: str, nodes: Nodes | None = None
) -> AsyncIterator[AbstractConnection]:
    """A connection, to the first node that answers, that shows as `name` in the management.

    `nodes` are kept by whoever connects again and again: then another node's turn comes first.

    Raises `Unreachable`, or `Misconfigured` where trying again cannot help.
    """
    connection = await _first_of(nodes or Nodes(settings.urls), settings, name)
    try:
        yield connection
    finally:
        # A frozen broker would never answer the farewell.
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await connection.close()


async def _first_of(nodes: Nodes, settings: BrokerSettings, name: str) -> AbstractConnection:
    faults: dict[URL, Exception] = {}
    for url in nodes:
        try:
            return await _open(url, settings, name)
        except FAILURES as error:
            faults[url] = error
            if len(nodes) > 1:
                log.info("a node cannot be used, trying the next", reason=str(explain(error, url)))
    raise none_of(faults) from faults[url]


async def _open(url: URL, settings: BrokerSettings, name: str) -> AbstractConnection:
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=settings.heartbeat_seconds)
    return await aio_pika.connect(
        url,
        # Made anew each time: a file may have been renewed.
        ssl_context=settings.tls_files.context() if url.scheme == "amqps" else None,
        timeout=settings.connect_timeout_seconds,
        client_properties={"connection_name": name},
        connection_class=_Connection,
    )


@asynccontextmanager
async def answered_within(seconds: float) -> AsyncIterator[None]:
    """Bound questions about queues: a node that has lost sight of a leader answers none."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unreachable(
            f"RabbitMQ does not answer questions about a queue within {seconds:g} s: the node has "
            "lost sight of the queue's leader"
        ) from error


def intake_of(connection: AbstractConnection) -> Intake | None:
    """Where the connection's frames come in, if it is one of `connect`'s."""
    return connection.factory.intake if isinstance(connection, _Connection) else None


def account_of(connection: AbstractConnection) -> str | None:
    """The account that logged in; `None` where its certificate said which."""
    assert connection.transport is not None
    url = connection.transport.connection.url
    by_password = url.query.get("auth", "plain").lower() == "plain"
    return url.user if by_password else None


async def open_channel(connection: AbstractConnection) -> Channel:
    """A channel of aiormq's, with confirms, where a returned message fails its publish."""
    channel = connection.channel(publisher_confirms=True, on_return_raises=True)
    await channel.initialize()
    return cast(Channel, await channel.get_underlay_channel())


async def closed(connection: AbstractConnection, channel: Channel) -> str:
    """Wait for the end of the connection or channel; return why it came."""
    assert connection.transport is not None
    endings = {connection.transport.connection.closing, channel.closing}
    try:
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        return next(
            (str(error) or type(error).__name__ for error in map(_reason, endings) if error),
            "the connection was closed",
        )
    finally:
        for ending in endings:
            ending.cancel()


def ending_of(channel: Channel) -> BaseException | None:
    """What ended the channel, or its connection, if it has ended."""
    return _reason(channel.closing) if channel.is_closed else None


def refusal_of(channel: Channel) -> ChannelAccessRefused | None:
    """What the account was not allowed to do, if the broker closed the channel for that."""
    error = ending_of(channel)
    return error if isinstance(error, ChannelAccessRefused) else None


def _reason(ending: asyncio.Future[Any]) -> BaseException | None:
    return ending.exception() if ending.done() and not ending.cancelled() else None


async def is_blocked(connection: AbstractConnection) -> bool:
    """Whether the broker takes no messages just now: a memory or disk alarm."""
    assert connection.transport is not None
    try:
        async with asyncio.timeout(0.01):
            await connection.transport.connection.ready()
    except TimeoutError:
        return True
    return False


async def keep_connected(
    settings: BrokerSettings, name: str, part: Component, serve: Serve
) -> None:
    """Serve one connection after the other, for ever.

    Waits between attempts grow, with full jitter, and start over after each success; an attempt
    goes once around the nodes. A setting that cannot work is raised at first; once it has worked,
    it is an outage like any other.
    """
    attempt, has_worked, nodes = 0, False, Nodes(settings.urls)
    while True:
        part.has_been_ready = False
        try:
            async with connect(settings, name, nodes) as connection:
                part.connections += 1
                await serve(connection)
            reason = "the connection was closed"
        except (Misconfigured, ChannelAccessRefused) as error:
            fault = lacks_right(error) if isinstance(error, ChannelAccessRefused) else error
            if not has_worked and not part.has_been_ready:
                raise fault from error
            reason = str(fault)
        except (Unreachable, *CONNECTION_EXCEPTIONS) as error:
            reason = str(error) or type(error).__name__
        except asyncio.CancelledError:
            # aiormq cancels what waits for an answer when a connection dies.
            if is_cancelled():
                raise
            reason = "the connection was lost"
        except Exception as error:
            # Not foreseen; but a worker that serves no longer, and does not say so, is worse.
            log.exception("serving the broker failed", part=part.name)
            reason = f"{type(error).__name__}: {error}"
        if part.has_been_ready:
            attempt, has_worked = 0, True
        part.down(reason)
        attempt += 1
        await asyncio.sleep(RECONNECT.delay(attempt))
