"""Locks that others hold for long: their wait is cut short, and a frozen worker's are ended.

A session that waits for its client between two statements is ended by the server itself
(`idle_in_transaction_session_timeout`). Between the preparing of a statement and its execution
PostgreSQL counts it as active, and there no limit ends it, not even `statement_timeout` (measured
with PostgreSQL 15; `transaction_timeout` came with 17): its locks would last until the client's
machine is gone, and cost others their commands.
"""

from __future__ import annotations

from contextlib import suppress

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.database.engine import Sessions

log = structlog.get_logger(__name__)

LOCK_TIMEOUT = "55P03"  # lock_not_available

# Far longer than the transactions of other workers take, which are waited for as well.
_BRIEFLY = text("SET LOCAL lock_timeout = '200ms'")

# Of this account and this application only: for whoever else is slow, nobody here may say what that
# means.
_END = text("""
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = session_user
  AND application_name = current_setting('application_name')
  AND state = 'active' AND wait_event = 'ClientRead'
  AND state_change < clock_timestamp() - make_interval(secs => :seconds)
""")


async def end_frozen(sessions: Sessions, *, after_seconds: float) -> None:
    """End what has waited that long for its client with a statement half sent; never raises."""
    # Who waits for the lock tries again, whatever comes of this.
    with suppress(SQLAlchemyError, OSError, TimeoutError):
        async with sessions.begin() as session:
            ended = await session.scalar(_END, {"seconds": float(after_seconds)})
        if ended:
            log.warning("ended sessions of a frozen worker", sessions=ended, after=after_seconds)


async def wait_briefly(session: AsyncSession) -> None:
    """Let the transaction that has just begun give up soon where somebody else holds a lock."""
    await session.execute(_BRIEFLY)
