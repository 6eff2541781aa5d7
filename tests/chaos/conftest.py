"""Private servers, to be broken; never those of the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import make_settings
from tests.databases import migrate
from tests.harness import Harness
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbitMQ
from worker.settings import Settings


@pytest.fixture(scope="session")
async def own_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateRabbitMQ]:
    server = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.remove)


@pytest.fixture(scope="session")
async def own_database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivatePostgres]:
    server = PrivatePostgres(tmp_path_factory.mktemp("postgres"))
    await asyncio.to_thread(server.start)
    await migrate(server.url)
    yield server
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.remove)


@pytest.fixture
async def breakable(
    own_broker: PrivateRabbitMQ, own_database: PrivatePostgres
) -> AsyncIterator[Harness]:
    """A harness on servers that the test may break; both are well at its start."""
    for server in (own_broker, own_database):
        await asyncio.to_thread(server.start)
    settings: Settings = make_settings(own_broker.url, own_database.url)
    async with Harness(settings) as harness:
        await harness.rows("TRUNCATE users, orders, command_ledger RESTART IDENTITY CASCADE")
        yield harness
