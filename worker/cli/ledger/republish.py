"""`worker ledger republish`: stored events once more, byte for byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from worker.cli.ledger import NotInLedger, open_sessions, unknown
from worker.cli.prepare import paced
from worker.cli.terminal import Report, counted, say

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from worker.broker.topology import Topology
    from worker.core.messages import Publication
    from worker.database.engine import Sessions
    from worker.database.ledger import Entry
    from worker.settings.settings import Settings

BATCH = 500

MOST_SET_BACK = timedelta(seconds=10)
"""By which the database's clock may have been set back, as where a standby takes over."""


async def republish(
    settings: Settings, ids: Sequence[str], since: datetime | None, *, rate: float | None, dry: bool
) -> None:
    """Publish the events of these commands, or of all since then, not faster than `rate`.

    Raises `NotInLedger` in the end for ids that are unknown.
    """
    from worker.broker.client.client import open_sender
    from worker.broker.topology import Topology

    topology = Topology.of(settings)
    count, steps, report = 0, paced(rate), Report()
    try:
        async with (
            open_sessions(settings) as sessions,
            open_sender(settings.broker, topology, f"{settings.namespace} republish") as sender,
        ):
            async for entry in _entries(sessions, settings, ids, since):
                if not dry:
                    await anext(steps)
                    await sender.send(_publication(topology, entry))
                count += 1
                report.tell(
                    {
                        "id": entry.command_id,
                        "type": entry.answer.type,
                        "event_id": entry.answer.id,
                        "action": "would publish" if dry else "published",
                    }
                )
    finally:
        say(f"{counted(count, 'event')} {'would be ' if dry else ''}published")


async def _entries(
    sessions: Sessions, settings: Settings, ids: Sequence[str], since: datetime | None
) -> AsyncIterator[Entry]:
    if since is not None:
        async for entry in _entries_since(sessions, since):
            yield entry
        return
    from worker.database import ledger

    async with sessions() as session:
        found = await ledger.lookup(session, [id_ for id_ in ids if "\0" not in id_])
    for id_ in ids:
        if id_ in found:
            yield found[id_]
    for id_ in ids:
        if id_ not in found:
            raise NotInLedger(unknown(id_, settings))


async def _entries_since(sessions: Sessions, since: datetime) -> AsyncIterator[Entry]:
    """In the order of the ledger's sequence, with no more of them in memory than a while's.

    They are read by time, for which there is an index; a clock may have been set back.
    """
    waiting: list[tuple[int, int, Entry]] = []
    number = 0  # entries that are older than the sequence have no other order
    async for entry in _by_time(sessions, since):
        while waiting and _time(entry) - _time(waiting[0][2]) > MOST_SET_BACK:
            yield heappop(waiting)[2]
        heappush(waiting, (entry.position, number, entry))
        number += 1
    while waiting:
        yield heappop(waiting)[2]


def _time(entry: Entry) -> datetime:
    assert entry.recorded_on is not None
    return entry.recorded_on


async def _by_time(sessions: Sessions, since: datetime) -> AsyncIterator[Entry]:
    """Page by page, each in a short transaction."""
    last: Entry | None = None
    while True:
        async with sessions() as session:
            page = await _page(session, since, last)
        for entry in page:
            yield entry
        if len(page) < BATCH:
            return
        last = page[-1]


async def _page(session: AsyncSession, since: datetime, last: Entry | None) -> list[Entry]:
    from sqlalchemy import cast, select, tuple_
    from sqlalchemy.dialects.postgresql import JSONB

    from worker.core.messages import ResultEvent
    from worker.database.ledger import Entry, LedgerRow

    # Of entries that have no position yet only their events tell which was first.
    time = cast(LedgerRow.event_body, JSONB)["time"].astext
    order = (LedgerRow.recorded_on, LedgerRow.position, time, LedgerRow.command_id)
    query = select(LedgerRow).where(LedgerRow.recorded_on >= since).order_by(*order).limit(BATCH)
    if last is not None:
        time_of_last = json.loads(last.answer.body)["time"]
        after = (last.recorded_on, last.position, time_of_last, last.command_id)
        query = query.where(tuple_(*order) > after)
    return [
        Entry(
            row.command_id,
            row.digest,
            row.outcome,
            ResultEvent(row.event_id, row.event_type, row.event_body.encode(), replayed=True),
            row.recorded_on,
            row.position,
        )
        for row in await session.scalars(query)
    ]


def _publication(topology: Topology, entry: Entry) -> Publication:
    from worker.broker.publisher.publications import CLOUDEVENT
    from worker.cli.events import members_of
    from worker.codec.routing_key import short
    from worker.core.messages import Publication

    headers: dict[str, Any] = {"commandid": entry.command_id, "x-replayed": True}
    correlation = (members_of(entry.answer.body) or {}).get("correlationid")
    return Publication(
        exchange=topology.events,
        routing_key=entry.answer.type,
        body=entry.answer.body,
        content_type=CLOUDEVENT,
        type=entry.answer.type,
        correlation_id=short(correlation) if isinstance(correlation, str) else None,
        headers=headers,
    )
