"""Servers, databases and workers for the tests.

RabbitMQ and PostgreSQL are those of `WORKER_BROKER__URL` and `WORKER_DATABASE__URL`; `make test`
starts some and sets both. A test that needs them fails, and is not skipped, when they are missing.
Each test has a namespace and a database of its own: the database is a copy of a template that was
migrated once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from xdist.remote import Producer

from dev.databases import fresh_database, migrate
from dev.servers.postgres import PrivatePostgres
from tests.support.file_report import FileReport
from tests.support.harness import Harness
from tests.support.side_by_side import SideBySide, is_beside_others, measures, place_in_line
from worker.settings.settings import Settings

os.environ.setdefault("WORKER_LOG_FORMAT", "json")
# A worker within a test logs as it does outside, with plain tracebacks: a pretty one takes seconds,
# in which the worker does nothing else.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


@pytest.hookimpl(trylast=True)  # when xdist knows whether it is the one that hands out
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and config.pluginmanager.has_plugin("dsession") and not config.option.verbose:
        config.pluginmanager.register(FileReport(terminal), "file-report")


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"integration", "e2e", "chaos", "security"} & set(Path(item.fspath).parts):
            item.add_marker(pytest.mark.servers)
        if measures(item.nodeid):  # all others have one try
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=lambda item: place_in_line(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    config.option.loadscopereorder = False  # the order is that of the collection
    return SideBySide(config, log)


@pytest.fixture(scope="session")
def broker_url() -> str:
    return _required("WORKER_BROKER__URL")


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The database server; tests make databases of their own on it.

    Each of several processes that test side by side has a server of its own, so that it sees no
    other's sessions, and no other's lab: of its database a server has only one.
    """
    if is_beside_others():
        # Nobody cuts its power; and to sync a database to disk is half of making one.
        fast = {"fsync": "off"}
        with PrivatePostgres(tmp_path_factory.mktemp("postgres"), settings=fast) as server:
            yield server.url
        server.remove()
    else:
        yield _required("WORKER_DATABASE__URL")


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
