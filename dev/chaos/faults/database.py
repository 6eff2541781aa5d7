"""PostgreSQL that stops, crashes, freezes, is full or takes no writes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from dev.chaos.faults.fault import Blow, Fault, NotInjected
from dev.chaos.schedule import Recipe


class DatabaseRestart(Fault):
    """Stopped in order, and started again."""

    name = "database-restart"
    recipe = Recipe((0, 3))

    async def begin(self) -> None:
        await asyncio.to_thread(self.place.database.stop)

    async def end(self) -> None:
        await asyncio.to_thread(self.place.database.start)


class DatabaseKill(DatabaseRestart):
    """kill -9 of all its processes, and started again."""

    name = "database-kill"

    async def begin(self) -> None:
        await asyncio.to_thread(self.place.database.kill)


class DatabaseFreeze(Fault):
    """Connections stay open, and nobody answers."""

    name = "database-freeze"
    recipe = Recipe((3, 8))

    async def begin(self) -> None:
        await asyncio.to_thread(self.place.database.freeze)

    async def end(self) -> None:
        await asyncio.to_thread(self.place.database.thaw)


class BackendsTerminated(Blow):
    """The backends of all workers are ended, whatever they are doing."""

    name = "backends-terminated"
    recipe = Recipe((0, 0), weight=2)

    async def begin(self) -> None:
        await self.place.publisher.burst(200)
        await self.place.sql(_END_WORKERS)


class ConnectionsTaken(Fault):
    """Others have taken every connection that the server allows."""

    name = "connections-taken"
    recipe = Recipe((2, 4))

    async def begin(self) -> None:
        self._taken: list[asyncpg.Connection] = []
        first = await asyncpg.connect(self.place.dsn)
        self._taken.append(first)
        # Until two rounds bring none: the workers let go of theirs and ask for new ones.
        for _ in range(20):
            await first.execute(_END_WORKERS)
            if not await self._take_all():
                return
        raise NotInjected("there was always one more connection to be had")

    async def _take_all(self) -> int:
        before = len(self._taken)
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                self._taken.append(await asyncpg.connect(self.place.dsn))
        return len(self._taken) - before

    async def end(self) -> None:
        for connection in self._taken:
            await connection.close()


class ReadOnly(Fault):
    """The database takes no writes, as a standby does."""

    name = "read-only"
    recipe = Recipe((2, 4))

    async def begin(self) -> None:
        await self._set("ALTER SYSTEM SET default_transaction_read_only = on")

    async def end(self) -> None:
        await self._set("ALTER SYSTEM RESET default_transaction_read_only")

    async def _set(self, statement: str) -> None:
        await self.place.sql(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            statement,
            "SELECT pg_reload_conf()",
        )


class DiskFull(Fault):
    """No room for another page of any table: the disk of the tables is made as small as they are.

    Where no disk of our own can be mounted, a trigger raises the same error (53100).
    """

    name = "disk-full"
    recipe = Recipe((2, 4))

    async def begin(self) -> None:
        if self.place.disk is not None:
            await self.place.disk.fill()
        else:
            await self.place.sql(_SIMULATE_DISK_FULL, _ON_LEDGER)

    async def end(self) -> None:
        if self.place.disk is not None:
            await self.place.disk.enlarge()
        else:
            await self.place.sql("DROP TRIGGER IF EXISTS chaos_disk_full ON command_ledger")


_END_WORKERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name LIKE '%worker' AND pid <> pg_backend_pid()"
)
_SIMULATE_DISK_FULL = """
CREATE OR REPLACE FUNCTION chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file: no space left';
END $$"""
_ON_LEDGER = (
    "CREATE TRIGGER chaos_disk_full BEFORE INSERT ON command_ledger"
    " FOR EACH STATEMENT EXECUTE FUNCTION chaos_disk_full()"
)
