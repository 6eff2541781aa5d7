"""Notices that the database is away, and waits until it is back (guarantee G6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from worker.core.backoff import RECONNECT
from worker.core.errors import Misconfigured, Unreachable
from worker.database.errors import explain, lacks_room
from worker.database.ledger import check_room
from worker.database.migrations import check_schema, check_usable
from worker.database.pool.pool import pool_of
from worker.telemetry.readiness import Component

LOOK_SECONDS = 5.0
"""Between the looks of a worker that has nothing to do."""


class DatabaseWatch:
    """One question at a time to the database, whatever the number of lanes that wait."""

    def __init__(
        self,
        engine: AsyncEngine,
        part: Component,
        *,
        migrations: Sequence[Path] = (),
        probe_timeout_seconds: float = 5,
    ) -> None:
        self._engine = engine
        self._migrations = migrations
        self._part = part
        self._probe_timeout_seconds = probe_timeout_seconds
        self._waiting: asyncio.Task[None] | None = None
        self._checked = asyncio.Event()
        self._away = asyncio.Event()

    async def start(self) -> None:
        """Wait for the database, then check that account and schema are as they must be.

        Raises `Misconfigured` where waiting cannot help.
        """
        attempt = 0
        while True:
            try:
                await self._schema_is_in_order()
            except Unreachable as fault:
                self._part.down(str(fault))
                attempt += 1
                await asyncio.sleep(RECONNECT.delay(attempt))
            else:
                break
        self._part.up()
        self._checked.set()

    async def checked(self) -> None:
        """Return once `start` found everything in order and the database answers."""
        await self._checked.wait()
        await self.is_well("")

    async def is_well(self, reason: str) -> None:
        """Return once the database answers; `reason` is why that is in doubt.

        The first look is taken at once, further ones after a growing wait.
        """
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(self._wait(reason))
        await asyncio.shield(self._waiting)

    async def is_up(self, fault: BaseException) -> bool:
        """Whether the database does its work now, by its own word; `fault` is what puts that in
        doubt, and what it is asked about."""
        try:
            await self._probe()
            if lacks_room(fault):
                await self._ask(check_room(self._engine))
        except (Unreachable, Misconfigured):
            return False
        return True

    async def keep_looking(self) -> None:
        """Look again and again, for ever, while nobody uses the database and would notice."""
        await self.checked()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # Behind work a look would only wait for a connection, and take that for an outage.
            if not pool_of(self._engine).snapshot().in_use:
                await self.is_well("while there was nothing to do")

    async def away_for(self, seconds: float) -> None:
        """Return once the database has been away that long."""
        while True:
            await self._away.wait()
            await asyncio.sleep(seconds)
            if self._away.is_set():
                return

    def close(self) -> None:
        """Ask no more."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self, reason: str) -> None:
        attempt = 0
        while True:
            try:
                await self._probe()
            except (Unreachable, Misconfigured) as fault:
                self._away.set()
                self._part.down(f"{fault} (first noticed: {reason})" if reason else str(fault))
                attempt += 1
                await asyncio.sleep(RECONNECT.delay(attempt))
            else:
                break
        self._away.clear()
        self._part.up()

    async def _schema_is_in_order(self) -> None:
        await self._ask(check_schema(self._engine, self._migrations))

    async def _probe(self) -> None:
        await self._ask(check_usable(self._engine))

    async def _ask(self, check: Awaitable[None]) -> None:
        """Wait for a check, but not for ever: no answer in time is `Unreachable`."""
        try:
            async with asyncio.timeout(self._probe_timeout_seconds):
                await check
        except TimeoutError as error:
            raise explain(error, self._engine) from error
