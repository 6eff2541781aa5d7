"""Private servers that speak TLS as well, and know more accounts than one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.databases import migrate
from dev.servers import ports
from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.support.certificates import Authority, Pair, give
from tests.support.doc_lines import PASSWORD, run_rabbitmqctl, run_sql
from tests.support.harness import Harness
from tests.support.private import harness_on, lent
from worker.broker.topology import Topology
from worker.settings.settings import Settings

HOST = "localhost"
"""What the servers' certificates are made out to; 127.0.0.1 is a name that is not theirs."""

WANTS_CERTIFICATES = """\
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
HBA = """\
hostssl all certified 127.0.0.1/32 cert
host    all worker    127.0.0.1/32 trust
host    all all       127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class Keys:
    """Who is who."""

    authority: Authority
    server: Pair
    client: Pair
    """Its common name is that of PostgreSQL's account `certified`."""
    stranger: Authority


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return Keys(
        authority,
        authority.pair("server", HOST),
        authority.pair("certified"),
        Authority(tmp_path_factory.mktemp("stranger")),
    )


@pytest.fixture(scope="session")
def tls_port() -> int:
    return ports.choose(None)


@pytest.fixture(scope="session")
async def guarded_broker(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys, tls_port: int
) -> AsyncIterator[PrivateRabbitMQ]:
    """RabbitMQ that speaks plain AMQP, and TLS with those who show a certificate."""
    directory = tmp_path_factory.mktemp("rabbitmq")
    files = (keys.authority.file, keys.server.certificate, keys.server.key)
    ca, certificate, key = give(PrivateRabbitMQ(directory), *files)
    config = WANTS_CERTIFICATES.format(port=tls_port, ca=ca, certificate=certificate, key=key)
    async with lent(PrivateRabbitMQ(directory, config=config)) as server:
        yield server


@pytest.fixture(scope="session")
async def guarded_database(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys
) -> AsyncIterator[PrivatePostgres]:
    """PostgreSQL that offers TLS, with an account that logs in by certificate alone."""
    directory = tmp_path_factory.mktemp("postgres")
    hba = tmp_path_factory.mktemp("hba") / "pg_hba.conf"
    hba.write_text(HBA)
    files = (keys.authority.file, keys.server.certificate, keys.server.key, hba)
    ca, certificate, key, rules = map(str, give(PrivatePostgres(directory), *files))
    settings = {
        "ssl": "on",
        "ssl_ca_file": ca,
        "ssl_cert_file": certificate,
        "ssl_key_file": key,
        "hba_file": rules,
    }
    async with lent(PrivatePostgres(directory, settings=settings)) as server:
        yield server


@pytest.fixture
async def guarded(
    guarded_broker: PrivateRabbitMQ, guarded_database: PrivatePostgres
) -> AsyncIterator[Harness]:
    """A harness on those servers, by the plain way and with all rights."""
    async with harness_on(guarded_broker.url, guarded_database.url) as harness:
        yield harness


@pytest.fixture
def by_tls(
    guarded: Harness, guarded_database: PrivatePostgres, keys: Keys, tls_port: int
) -> Callable[..., Settings]:
    """The harness's settings with TLS on both ways, changed as named (`None` leaves one out)."""

    def settings(
        broker: dict[str, Any] | None = None, database: dict[str, Any] | None = None
    ) -> Settings:
        files = {
            "tls_ca_file": keys.authority.file,
            "tls_certificate_file": keys.client.certificate,
            "tls_key_file": keys.client.key,
        }
        database_url = f"postgresql+asyncpg://worker@{HOST}:{guarded_database.port}/worker"
        return Settings.model_validate(
            {
                **guarded.settings.model_dump(exclude={"broker", "database"}),
                "broker": {
                    **guarded.settings.broker.model_dump(),
                    "url": f"amqps://guest:guest@{HOST}:{tls_port}/",
                    **files,
                    **(broker or {}),
                },
                "database": {
                    **guarded.settings.database.model_dump(),
                    "url": database_url,
                    **files,
                    **(database or {}),
                },
            }
        )

    return settings


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings' servers and files, as a `worker` process wants them."""
    environment = {
        **os.environ,
        "WORKER_NAMESPACE": settings.namespace,
        "WORKER_HEALTH__PORT": "0",
        "WORKER_LOG_FORMAT": "json",
    }
    for name, section in (("BROKER", settings.broker), ("DATABASE", settings.database)):
        environment[f"WORKER_{name}__URL"] = section.url.get_secret_value()
        for file in ("tls_ca_file", "tls_certificate_file", "tls_key_file"):
            path: Path | None = getattr(section, file)
            if path is not None:
                environment[f"WORKER_{name}__{file.upper()}"] = str(path)
    return environment


@pytest.fixture(scope="session")
async def broker_accounts(guarded_broker: PrivateRabbitMQ) -> PrivateRabbitMQ:
    """The broker, with the accounts of docs/security.md."""
    await run_rabbitmqctl(guarded_broker, "rabbitmqctl")
    return guarded_broker


@pytest.fixture(scope="session")
async def database_accounts(guarded_database: PrivatePostgres) -> PrivatePostgres:
    """The database server, with the accounts of docs/security.md and its database, migrated."""
    await run_sql(guarded_database, "superuser", user="worker", database="postgres")
    await run_sql(guarded_database, "superuser shop", user="worker", database="shop")
    await migrate(database_url(guarded_database, "worker_owner"))
    await run_sql(guarded_database, "worker_owner shop", user="worker_owner", database="shop")
    return guarded_database


def database_url(server: PrivatePostgres, account: str) -> str:
    return f"postgresql+asyncpg://{account}:{PASSWORD}@127.0.0.1:{server.port}/shop"


def broker_url_of(server: PrivateRabbitMQ, account: str) -> str:
    return f"amqp://{account}:{PASSWORD}@127.0.0.1:{server.port}/"


@pytest.fixture
async def restricted(
    broker_accounts: PrivateRabbitMQ, database_accounts: PrivatePostgres
) -> AsyncIterator[Harness]:
    """A harness with all rights, in the database `shop`; exchanges and queues are there."""
    url = database_accounts.url.removesuffix("worker") + "shop"
    async with harness_on(broker_accounts.url, url, namespace="worker") as harness:
        await Topology("worker", harness.settings.broker).ensure(harness.connection)
        yield harness


@pytest.fixture
def few(broker_accounts: PrivateRabbitMQ, database_accounts: PrivatePostgres) -> dict[str, Any]:
    """The settings of a worker with few rights."""
    return {
        "broker": {"url": broker_url_of(broker_accounts, "worker_run"), "declare": False},
        "database": {"url": database_url(database_accounts, "worker_run")},
    }
