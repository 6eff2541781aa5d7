"""Private servers, to be broken; never those of the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.support.harness import Harness
from tests.support.private import harness_on, lent


@pytest.fixture(scope="session")
async def own_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateRabbitMQ]:
    async with lent(PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))) as server:
        yield server


@pytest.fixture(scope="session")
async def own_database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivatePostgres]:
    async with lent(PrivatePostgres(tmp_path_factory.mktemp("postgres"))) as server:
        yield server


@pytest.fixture
async def breakable(
    own_broker: PrivateRabbitMQ, own_database: PrivatePostgres
) -> AsyncIterator[Harness]:
    """A harness on servers that the test may break; both are well at its start."""
    for server in (own_broker, own_database):
        await asyncio.to_thread(server.start)
    async with harness_on(own_broker.url, own_database.url) as harness:
        yield harness
