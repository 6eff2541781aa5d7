"""Plays a restart of the database in the middle of a run."""

from __future__ import annotations

import asyncio

from sqlalchemy import TextClause, text

from worker.lab.place import DATABASE, Place
from worker.lab.scenario import Restart

_END = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name")


async def play(place: Place, restart: Restart | None) -> None:
    """Wait for its time, then restart, or do what a restart does to those who are connected.

    Only the lab's own connections are ended, and only the lab's own database lets nobody in, so
    others on the same server notice nothing. In the service's database nobody is kept out.
    """
    if restart is None:
        return
    await asyncio.sleep(restart.at_seconds)
    if restart.command is not None:
        process = await asyncio.create_subprocess_shell(restart.command)
        await process.wait()
        return
    async with place.outside.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        try:
            if place.is_own:
                await connection.execute(_allow(False))
            await connection.execute(_END, {"name": place.schema})
            await asyncio.sleep(restart.down_seconds)
        finally:
            if place.is_own:
                await connection.execute(_allow(True))


def _allow(allowed: bool) -> TextClause:
    return text(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS {str(allowed).lower()}")
