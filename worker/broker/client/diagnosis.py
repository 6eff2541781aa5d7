"""What the broker has to say about a worker that is to run, or runs: read, and nothing changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from secrets import token_hex

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError, ChannelAccessRefused

from worker.broker.connection import answered_within, connect, open_channel
from worker.broker.declaration import Declaration, FoundObjects
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured, Unreachable
from worker.core.findings import Finding

OLDEST = (3, 10)
"""Quorum queues know a message's time to live from 3.10 on."""
MAINTAINED = 4
CONFIRM_SECONDS = 5


async def examine_broker(topology: Topology, name: str) -> AsyncIterator[Finding]:
    """Everything that AMQP shows. It shows no policies, bindings or nodes; rabbitmqctl does."""
    settings = topology.settings
    try:
        async with connect(settings, name) as connection:
            for finding in _version(connection):
                yield finding
            async with (
                answered_within(settings.connect_timeout_seconds),
                Declaration(topology, connection) as declaration,
            ):
                async for finding in _objects(topology, declaration):
                    yield finding
            async for finding in _publishing(connection):
                yield finding
    except (Misconfigured, Unreachable, AMQPError, OSError) as error:
        yield Finding.of("broker", error, "no command comes, and no answer leaves")


def _version(connection: AbstractConnection) -> list[Finding]:
    assert connection.transport is not None
    told = connection.transport.connection.server_properties.get("version", "")
    version = told.decode() if isinstance(told, bytes) else str(told)
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not found or found >= (MAINTAINED, 0):
        return []
    return [
        Finding(
            "broker_version",
            f"RabbitMQ {version} "
            + ("is older than 3.10" if found < OLDEST else "is of a series without new releases"),
            "dead letters would stay for ever" if found < OLDEST else "faults are mended in 4.x",
            "upgrade RabbitMQ to 4.x (https://www.rabbitmq.com/docs/upgrade)",
            "problem" if found < OLDEST else "note",
        )
    ]


async def _objects(topology: Topology, declaration: Declaration) -> AsyncIterator[Finding]:
    found = await declaration.look()
    for kind, name in sorted(found.missing):
        declares = topology.settings.declare
        yield Finding(
            "missing_object",
            f"there is no {kind} {name!r}",
            "a worker makes it when it starts" if declares else "a worker may not make it",
            "worker run" if declares else "WORKER_BROKER__DECLARE=true worker run, once",
            "note" if declares else "problem",
        )
    try:
        await declaration.refuse_strays()
        await declaration.compare(found)
    except Misconfigured as fault:
        yield Finding.of("topology", fault, "a worker does not start so")
    for finding in _waiting(topology, found):
        yield finding


def _waiting(topology: Topology, found: FoundObjects) -> list[Finding]:
    findings = []
    for name in topology.consumed:
        queue = found.queues.get(name)
        if queue is not None and not queue.consumer_count:
            findings.append(
                Finding(
                    "no_worker",
                    f"nobody takes from {name!r}, where {queue.message_count} commands wait",
                    "nothing is carried out",
                    "worker run",
                    "note",
                )
            )
    letters = found.queues.get(topology.dead_letters)
    if letters is not None and letters.message_count:
        findings.append(
            Finding(
                "dead_letters",
                f"{letters.message_count} dead letters wait to be looked at",
                f"they go after {topology.settings.dead_letters_retention_days:g} days",
                "worker dead-letters list",
                "note",
            )
        )
    return findings


async def _publishing(connection: AbstractConnection) -> AsyncIterator[Finding]:
    """Publish, by the way that dead letters take, what no queue takes: so nothing is left of it."""
    channel = await open_channel(connection)
    try:
        async with asyncio.timeout(CONFIRM_SECONDS):
            # A broker in alarm reads the first message of a connection, and nothing after that.
            for _ in range(2):
                await channel.basic_publish(b"", routing_key=f"worker-doctor-{token_hex(8)}")
    except TimeoutError:
        yield Finding(
            "broker_blocked",
            f"RabbitMQ confirms nothing within {CONFIRM_SECONDS} s",
            "G6: answers cannot leave; most likely its memory or disk alarm is set",
            "rabbitmq-diagnostics check_local_alarms",
        )
    except ChannelAccessRefused as error:
        yield Finding(
            "default_exchange",
            f"the account may not publish to the default exchange: {error}",
            "dead letters and replies take that way",
            "rabbitmqctl set_permissions, with the lines of docs/security.md",
        )
