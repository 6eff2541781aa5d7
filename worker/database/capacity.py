"""How many connections the server has room for, and whether the pools can outgrow it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.pool.pool import pool_of

log = structlog.get_logger(__name__)

# Backends are counted where every account may see them; pg_stat_activity tells which are ours. Of
# the same name but from another address are other workers: they hold what they hold. Behind a
# pooler, or where all share one address, they are taken for these, and the warning comes later.
_ROOM = text(
    "SELECT current_setting('max_connections')::int AS most,"
    " current_setting('superuser_reserved_connections')::int"
    " + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,"
    " (SELECT sum(numbackends)::int FROM pg_stat_database) AS all_told,"
    " (SELECT count(*)::int FROM pg_stat_activity WHERE usename = current_user"
    " AND application_name = current_setting('application_name')"
    " AND client_addr IS NOT DISTINCT FROM inet_client_addr()) AS ours"
)


@dataclass(frozen=True, slots=True)
class Room:
    """The server's room for connections at one moment, and what the pools may want of it."""

    most: int
    """`max_connections`"""
    reserved: int
    """`superuser_reserved_connections` + `reserved_connections`"""
    others: int
    """Connections of all others now."""
    processes: int
    pool_size: int
    max_overflow: int

    @property
    def left(self) -> int:
        """What is left for these processes."""
        return max(0, self.most - self.reserved - self.others)

    @property
    def wanted(self) -> int:
        """Connections that the pools of all processes may open."""
        return self.processes * (self.pool_size + self.max_overflow)

    @property
    def fits(self) -> bool:
        """Whether the pools cannot outgrow the server."""
        return self.wanted <= self.left

    @property
    def sentence(self) -> str:
        """The numbers, and what to set where they do not fit."""
        sum_ = (
            f"{self.processes} × (pool_size {self.pool_size} + max_overflow {self.max_overflow}) "
            f"= {self.wanted} connections may be opened; PostgreSQL has {self.left} left: "
            f"max_connections {self.most} - {self.reserved} reserved - {self.others} used by others"
        )
        if self.fits:
            return f"{sum_}."
        return f"{sum_}. {self._mend()}"

    def _mend(self) -> str:
        enough = f"or raise max_connections to {self.reserved + self.others + self.wanted}"
        each = self.left // self.processes
        if each < 2:  # a lane and the health check
            return f"Run fewer processes, {enough}"
        size = min(self.pool_size, each)
        return (
            f"Set WORKER_DATABASE__POOL_SIZE={size} and WORKER_DATABASE__MAX_OVERFLOW="
            f"{each - size if size < each else 0}, {enough}"
        )


async def find_room(engine: AsyncEngine, *, processes: int = 1) -> Room:
    """Ask the server; `processes` is how many have a pool like this engine's."""
    pool = pool_of(engine).snapshot()
    async with engine.connect() as connection:
        row = (await connection.execute(_ROOM)).one()
    return Room(
        most=row.most,
        reserved=row.reserved,
        others=max(0, row.all_told - row.ours),
        processes=processes,
        pool_size=pool.size,
        max_overflow=pool.max_overflow,
    )


async def warn_if_crowded(engine: AsyncEngine, *, processes: int = 1) -> None:
    """Log a warning where the pools can outgrow the server: they would, just under load."""
    try:
        room = await find_room(engine, processes=processes)
    except (SQLAlchemyError, OSError) as error:  # a right is missing: no reason not to work
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.info("could not ask the server how many connections it has left", reason=reason)
        return
    if not room.fits:
        log.warning("the pool can outgrow the server", reason=room.sentence)
