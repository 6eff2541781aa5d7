"""Retention: the ledger forgets old commands, in small batches that hold nobody up.

A batch is one statement in a transaction of its own. It goes along the index over the time of
recording, takes its rows by where they lie, and leaves out those that somebody has locked, so it
waits for nobody and several workers prune at once. Each batch begins where the one before ended:
from the start of the index, it would step over all that was deleted and is not yet vacuumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.database.engine import Sessions
from worker.telemetry.instruments import Instrument, Reading

log = structlog.get_logger(__name__)

BATCH = 1_000
EVERY_SECONDS = 30
LEAST_PAUSE_SECONDS = 0.01

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
PRUNE = text("""
WITH gone AS (
  DELETE FROM command_ledger
  WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM command_ledger
    WHERE recorded_on < now() - CAST(:age AS interval) AND recorded_on >= :since
    ORDER BY recorded_on
    LIMIT :batch
    FOR UPDATE SKIP LOCKED
  ))
  RETURNING recorded_on
)
SELECT count(*) AS forgotten, max(recorded_on) AS until FROM gone
""")


PRUNED = Instrument(
    "worker.ledger.pruned",
    "counter",
    "{command}",
    "Commands that the ledger forgot, being older than its retention.",
)
ROWS = Instrument(
    "worker.ledger.rows",
    "gauge",
    "{command}",
    "Commands in the ledger, by the database's last estimate.",
)
INSTRUMENTS: tuple[Instrument, ...] = (PRUNED, ROWS)
# Minus one where the table was never analyzed.
ESTIMATE = text(
    "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'command_ledger'::regclass"
)


class LedgerMeter:
    """What is known of the ledger's size."""

    def __init__(self) -> None:
        self.pruned = 0
        self.rows = 0

    async def add(self, sessions: Sessions, forgotten: int) -> None:
        """So many were forgotten; see how many are left."""
        self.pruned += forgotten
        async with sessions.begin() as session:
            self.rows = (await session.execute(ESTIMATE)).scalar_one()

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        yield PRUNED, [({}, self.pruned)]
        yield ROWS, [({}, self.rows)]


@dataclass(frozen=True, slots=True)
class Pruned:
    """One batch: how many commands were forgotten, and the time of the youngest of them."""

    count: int
    until: datetime


async def prune(
    session: AsyncSession,
    older_than: timedelta,
    *,
    batch: int = BATCH,
    since: datetime = BEGINNING,
) -> Pruned:
    """Forget at most `batch` commands of that age, of those recorded at `since` or later."""
    values = {"age": older_than, "since": since, "batch": batch}
    row = (await session.execute(PRUNE, values)).one()
    return Pruned(row.forgotten, row.until or since)


async def forget(
    sessions: Sessions,
    older_than: timedelta,
    *,
    batch: int = BATCH,
    pause_seconds: float = LEAST_PAUSE_SECONDS,
) -> AsyncIterator[int]:
    """Forget all commands of that age; yields the number of each batch.

    After each it rests for as long as it took, and at least for `pause_seconds`: so it never takes
    more than half of one connection's time, however much there is to do.
    """
    since = BEGINNING
    while True:
        started = monotonic()
        async with sessions.begin() as session:
            pruned = await prune(session, older_than, batch=batch, since=since)
        yield pruned.count
        if pruned.count < batch:
            return
        since = pruned.until
        await asyncio.sleep(max(pause_seconds, monotonic() - started))


async def keep_pruned(
    sessions: Sessions,
    retention: timedelta,
    meter: LedgerMeter | None = None,
    *,
    every_seconds: float = EVERY_SECONDS,
    batch: int = BATCH,
    pause_seconds: float = LEAST_PAUSE_SECONDS,
) -> None:
    """Forget what is older than the retention, for ever: all there is, then a rest.

    A database that is away is left to others to notice; it is said once that nothing is pruned.
    """
    failing = False
    while True:
        forgotten = 0
        try:
            async for count in forget(
                sessions, retention, batch=batch, pause_seconds=pause_seconds
            ):
                forgotten += count
            if meter is not None:
                await meter.add(sessions, forgotten)
            failing = False
        except (SQLAlchemyError, OSError) as error:
            if not failing:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning("the ledger was not pruned", reason=reason)
            failing = True
        if forgotten:
            log.info("ledger pruned", commands=forgotten)
        await asyncio.sleep(every_seconds)
