"""Servers, databases and workers for the tests.

RabbitMQ and PostgreSQL are those of `WORKER_BROKER__URL` and `WORKER_DATABASE__URL`; `make test`
starts some and sets both. A test that needs them fails, and is not skipped, when they are missing.
Each test has a namespace and a database of its own: the database is a copy of a template that was
migrated once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.databases import fresh_database, migrate
from tests.harness import Harness
from worker.settings import Settings

os.environ.setdefault("WORKER_LOG_FORMAT", "json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"integration", "e2e", "chaos", "security"} & set(Path(item.fspath).parts):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def broker_url() -> str:
    return _required("WORKER_BROKER__URL")


@pytest.fixture(scope="session")
def server_url() -> str:
    """The database server; tests make databases of their own on it."""
    return _required("WORKER_DATABASE__URL")


def _required(name: str) -> str:
    url = os.environ.get(name)
    if not url:
        pytest.fail(f"{name} is not set: run `make test`, which starts the servers and sets it")
    return url


@pytest.fixture(scope="session")
async def template_database(server_url: str) -> AsyncIterator[str]:
    """Name of a database with the newest schema and no rows."""
    name = f"worker_test_{uuid.uuid4().hex[:12]}"
    async with fresh_database(server_url, name) as url:
        await migrate(url)
        yield name


@pytest.fixture
async def database(server_url: str, template_database: str) -> AsyncIterator[str]:
    """Address of a fresh database with the newest schema."""
    name = f"{template_database}_{uuid.uuid4().hex[:8]}"
    async with fresh_database(server_url, name, template=template_database) as url:
        yield url


@pytest.fixture
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """Address of a fresh database with nothing in it."""
    async with fresh_database(server_url, f"worker_test_{uuid.uuid4().hex[:12]}") as url:
        yield url


@pytest.fixture
def settings(broker_url: str, database: str) -> Settings:
    """Settings for a worker of this test alone."""
    return make_settings(broker_url, database)


def make_settings(broker_url: str, database: str) -> Settings:
    return Settings.model_validate(
        {
            "namespace": f"test-{uuid.uuid4().hex[:12]}",
            "broker": {"url": broker_url},
            "database": {"url": database},
            "health": {"port": 0},
            "retry_base_seconds": 0.02,
            "retry_max_seconds": 0.1,
        }
    )


@pytest.fixture
async def harness(settings: Settings) -> AsyncIterator[Harness]:
    """Publishes, watches and looks, with no code of the worker but its settings."""
    async with Harness(settings) as it:
        yield it


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a `worker` process with this test's settings."""
    return {
        **os.environ,
        "WORKER_BROKER__URL": settings.broker.url.get_secret_value(),
        "WORKER_DATABASE__URL": settings.database.url.get_secret_value(),
        "WORKER_NAMESPACE": settings.namespace,
        "WORKER_HEALTH__PORT": "0",
        "WORKER_LOG_FORMAT": "json",
    }
