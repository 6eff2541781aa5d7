"""Private servers for the tests of a whole session, and harnesses on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from dev.databases import migrate
from dev.servers.postgres import PrivatePostgres
from dev.servers.private import PrivateServer
from tests.conftest import make_settings
from tests.support.harness import Harness

S = TypeVar("S", bound=PrivateServer)


@asynccontextmanager
async def lent(server: S) -> AsyncIterator[S]:
    """The server, started; a database has the newest schema. In the end nothing of it is left."""
    await asyncio.to_thread(server.start)
    try:
        if isinstance(server, PrivatePostgres):
            await migrate(server.url)
        yield server
    finally:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.remove)


@asynccontextmanager
async def harness_on(
    broker_url: str, database_url: str, *, namespace: str | None = None
) -> AsyncIterator[Harness]:
    """A harness on servers that other tests have used: its tables are empty."""
    settings = make_settings(broker_url, database_url)
    if namespace is not None:
        settings = settings.model_copy(update={"namespace": namespace})
    async with Harness(settings) as harness:
        await harness.rows("TRUNCATE users, orders, command_ledger RESTART IDENTITY CASCADE")
        yield harness
