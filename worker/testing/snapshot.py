"""Takes stock at the end: the rows, the ledger, and what lies in the queues, into the book."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from pika.adapters.blocking_connection import BlockingChannel

from worker.testing.broker_errors import connect, parameters_of
from worker.testing.journal import (
    Entry,
    JournalWriter,
    Ledger,
    Seed,
    SetAside,
    Stock,
    StoredRow,
    Waiting,
)

SILENT_SECONDS = 10
MOST_UNACKNOWLEDGED = 65_535
"""What AMQP allows one consumer to hold; of a partition's backlog, no more is looked at."""

_Message = tuple[Any, bytes]

LEDGER = """
SELECT command_id, outcome, event_id::text, event_type,
       encode(sha256(convert_to(event_body, 'UTF8')), 'hex') AS digest
FROM command_ledger
"""


def take_stock(
    book: Path,
    *,
    broker_url: str,
    database_url: str,
    namespace: str,
    tables: Mapping[str, str],
    partitions: int = 1,
) -> None:
    """Write down how things stand; in place of an earlier stock, if there was one.

    `tables` names the table of each entity to look at, such as `{"user": "users"}`; `partitions` is
    `WORKER_PARTITIONS`. Nothing is taken from the queues, though the broker counts one more
    delivery of what lies in them. Let workers stop before: what one has in hand is seen by nobody.
    """
    entries: list[Entry] = [
        *_letters(broker_url, f"{namespace}.dead-letters"),
        *_waiting(broker_url, namespace, partitions),
        *asyncio.run(_tables(database_url, tables)),
        Stock(list(tables), time.monotonic()),
    ]
    (book / "stock.ndjson").unlink(missing_ok=True)
    with JournalWriter(book, "stock") as pen:
        pen.write(*entries)


def command_queues(namespace: str, partitions: int) -> list[str]:
    """All queues in which commands wait."""
    shared = f"{namespace}.commands"
    numbers = range(1, partitions + 1) if partitions > 1 else ()
    return [shared, *(f"{shared}.{number}" for number in numbers)]


def note_seeds(book: Path, *, database_url: str, tables: Mapping[str, str]) -> None:
    """Write down the rows that are there before the first command; not needed if there are none."""
    entries = asyncio.run(_tables(database_url, tables))
    with JournalWriter(book, "seeds") as pen:
        pen.write(
            *(
                Seed(each.subject, each.version, each.values)
                for each in entries
                if type(each) is StoredRow
            )
        )


def _letters(broker_url: str, queue: str) -> Iterator[SetAside]:
    for properties, _ in _browse(broker_url, queue, _get_all):
        headers = properties.headers or {}
        # The broker's own dead-lettering adds no headers of ours.
        id_ = headers.get("x-command-id", properties.message_id)
        yield SetAside(id_, headers.get("x-event-id"), headers.get("x-code"), time.monotonic())


def _waiting(broker_url: str, namespace: str, partitions: int) -> Iterator[Waiting]:
    shared, *rest = command_queues(namespace, partitions)
    messages = _browse(broker_url, shared, _get_all)
    for queue in rest:
        messages += _browse(broker_url, queue, _consume_all)
    for properties, body in messages:
        try:
            id_ = json.loads(body)["id"]
        except (ValueError, KeyError, TypeError):
            id_ = properties.message_id
        yield Waiting(id_)


def _browse(
    broker_url: str, queue: str, look: Callable[[BlockingChannel, str], Iterator[_Message]]
) -> list[_Message]:
    """Look at every message; with the end of the connection all return to the queue."""
    connection = connect(parameters_of(broker_url))
    try:
        return list(look(connection.channel(), queue))
    finally:
        connection.close()


def _get_all(channel: BlockingChannel, queue: str) -> Iterator[_Message]:
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            return
        yield properties, body or b""


def _consume_all(channel: BlockingChannel, queue: str) -> Iterator[_Message]:
    """The same of a queue with a single active consumer, which lets nobody get."""
    ready = channel.queue_declare(queue, passive=True).method.message_count
    # By default a quorum queue hands out 2,000 before it waits for acknowledgements.
    channel.basic_qos(prefetch_count=MOST_UNACKNOWLEDGED)
    messages = channel.consume(queue, inactivity_timeout=SILENT_SECONDS)
    for number in range(min(ready, MOST_UNACKNOWLEDGED)):
        method, properties, body = next(messages)
        if method is None:
            raise TimeoutError(
                f"{queue!r} holds {ready} messages and hands out {number}: is somebody else "
                "consuming from it? Stop all workers, then take stock"
            )
        yield properties, body or b""


async def _tables(database_url: str, tables: Mapping[str, str]) -> list[Entry]:
    # asyncpg knows no `postgresql+asyncpg`.
    dsn = urlsplit(database_url)._replace(scheme="postgresql").geturl()
    connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC"})
    try:
        # One snapshot of all, lest a worker that still runs makes them contradict each other.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            entries: list[Entry] = [Ledger(**record) for record in await connection.fetch(LEDGER)]
            for entity, table in tables.items():
                query = f'SELECT id, version, to_jsonb(t)::text AS values FROM "{table}" t'  # noqa: S608
                entries += [
                    StoredRow(f"{entity}/{record['id']}", record["version"], record["values"])
                    for record in await connection.fetch(query)
                ]
    finally:
        await connection.close()
    return entries
