"""TLS to both servers: what works, and above all what must not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.security.conftest import HOST, Keys, environment_of
from tests.support.certificates import Authority, Pair
from tests.support.commandline import CommandLine
from tests.support.harness import Harness, eventually
from worker.broker.connection import connect
from worker.broker.publisher.batch import BurstChannel
from worker.core.errors import Misconfigured, Unreachable, WorkerError
from worker.database.engine import make_engine
from worker.database.errors import explain
from worker.processing.fault_kinds import FaultKind, classify
from worker.settings.settings import BrokerSettings, DatabaseSettings, Settings

ByTls = Callable[..., Settings]

# The one that the server cannot trust the worker's certificate by is not among them: RabbitMQ
# wants one from everybody here, PostgreSQL from the account `certified`.
NO_CERTIFICATE = {"tls_certificate_file": None, "tls_key_file": None}


async def test_a_worker_does_its_work_by_tls_both_ways(
    guarded: Harness,
    by_tls: ByTls,
    guarded_broker: PrivateRabbitMQ,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bursts = 0
    send = BurstChannel.send

    def counted(*arguments: Any) -> Any:
        nonlocal bursts
        bursts += 1
        return send(*arguments)

    monkeypatch.setattr(BurstChannel, "send", counted)
    settings = by_tls()
    async with guarded.worker(broker=settings.broker, database=settings.database):
        created = await guarded.ask(
            "user.create", data={"username": "ann", "email": "ann@example.com"}
        )
        unknown = await guarded.ask("user.fly")
        listed = await asyncio.to_thread(
            guarded_broker.ctl, "list_connections", "client_properties", "ssl", "ssl_protocol"
        )
        sessions = await guarded.rows(
            "SELECT ssl, version, client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = $1",
            f"{guarded.settings.namespace} worker",
        )

    assert created.routing_key == "user.created"
    assert unknown.data["code"] == "unknown_type"
    assert bursts >= 1
    ours = [line for line in listed.splitlines() if guarded.settings.namespace in line]
    assert len(ours) == 2
    assert all("\ttrue\ttlsv1." in line for line in ours), ours
    assert sessions
    assert {session["ssl"] for session in sessions} == {True}
    assert {session["version"] for session in sessions} <= {"TLSv1.2", "TLSv1.3"}


@pytest.mark.long
async def test_the_command_line_takes_the_same_way(guarded: Harness, by_tls: ByTls) -> None:
    settings = by_tls(database={"url": _database_url(by_tls, user="certified", mode=None)})
    await guarded.rows("DROP ROLE IF EXISTS certified")
    await guarded.rows("CREATE ROLE certified LOGIN SUPERUSER")
    cli = CommandLine(environment_of(settings))

    await cli("migrate")
    async with cli.running("run") as run:
        await eventually(lambda: run.err.count(b'"event": "ready"') == 3 or run.ended, within=30)
        answer = await cli(
            "publish", "user.create", "username=bob", "email=bob@example.com", "--wait"
        )

    assert answer.line["type"] == "user.created"


def _database_url(by_tls: ByTls, *, mode: str | None = None, **changes: Any) -> str:
    url = make_url(by_tls().database.url.get_secret_value())
    url = url.set(**{"username" if key == "user" else key: it for key, it in changes.items()})
    if mode is not None:
        url = url.update_query_dict({"sslmode": mode})
    return url.render_as_string(hide_password=False)


# The broker


async def broker_fault(settings: BrokerSettings) -> WorkerError | None:
    try:
        async with connect(settings, "test"):
            return None
    except WorkerError as error:
        return error


async def test_a_broker_of_another_authority_is_refused(by_tls: ByTls, keys: Keys) -> None:
    fault = await broker_fault(by_tls(broker={"tls_ca_file": keys.stranger.file}).broker)

    assert isinstance(fault, Misconfigured)
    assert "not trusted" in str(fault)
    assert "WORKER_BROKER__TLS_CA_FILE" in str(fault)


async def test_a_broker_is_refused_by_the_authorities_of_the_system(by_tls: ByTls) -> None:
    assert isinstance(
        await broker_fault(by_tls(broker={"tls_ca_file": None}).broker), Misconfigured
    )


async def test_a_broker_with_the_name_of_another_host_is_refused(
    by_tls: ByTls, tls_port: int
) -> None:
    url = f"amqps://guest:secret@127.0.0.1:{tls_port}/"
    fault = await broker_fault(by_tls(broker={"url": url}).broker)

    assert isinstance(fault, Misconfigured)
    assert "IP address mismatch" in str(fault)
    assert "secret" not in str(fault)


async def test_a_broker_that_wants_a_certificate_says_so(by_tls: ByTls) -> None:
    assert await broker_fault(by_tls().broker) is None

    fault = await broker_fault(by_tls(broker=NO_CERTIFICATE).broker)

    # With TLS 1.3 it says so only after the handshake, and the end may come before its words.
    assert isinstance(fault, Misconfigured | Unreachable)
    assert "TLS_CERTIFICATE_FILE" in str(fault)


async def test_a_certificate_that_the_broker_does_not_trust_is_refused(
    by_tls: ByTls, keys: Keys
) -> None:
    foreign = keys.stranger.pair("intruder")
    changes = {"tls_certificate_file": foreign.certificate, "tls_key_file": foreign.key}

    fault = await broker_fault(by_tls(broker=changes).broker)

    assert isinstance(fault, Misconfigured | Unreachable)
    assert "TLS_CERTIFICATE_FILE" in str(fault)


async def test_a_port_without_tls_says_so(by_tls: ByTls, guarded_broker: PrivateRabbitMQ) -> None:
    url = f"amqps://guest:guest@{HOST}:{guarded_broker.port}/"

    fault = await broker_fault(by_tls(broker={"url": url}).broker)

    assert isinstance(fault, Misconfigured), fault
    assert "does not speak TLS" in str(fault)


@asynccontextmanager
async def tls_server(
    pair: Pair, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> AsyncIterator[tuple[int, list[str]]]:
    """A port where someone speaks TLS and nothing after it; and the TLS versions agreed upon."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    context.set_ciphers("ALL:@SECLEVEL=0")
    agreed: list[str] = []

    async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed.append(writer.get_extra_info("ssl_object").version())
        writer.close()

    server = await asyncio.start_server(end, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], agreed


async def test_a_broker_whose_certificate_has_expired_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with tls_server(authority.pair("old", HOST, expired=True)) as (port, _):
        fault = await broker_fault(
            BrokerSettings.model_validate(
                {"url": f"amqps://{HOST}:{port}/", "tls_ca_file": authority.file}
            )
        )

    assert isinstance(fault, Misconfigured)
    assert "expired" in str(fault)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
async def test_nothing_older_than_tls_1_2_is_agreed_upon(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = Authority(tmp_path)
    async with tls_server(authority.pair("new", HOST), version) as (port, agreed):
        settings = {"url": f"amqps://{HOST}:{port}/", "tls_ca_file": authority.file}
        assert await broker_fault(BrokerSettings.model_validate(settings)) is not None

    assert agreed == (["TLSv1.2"] if version is ssl.TLSVersion.TLSv1_2 else [])


@pytest.mark.long
async def test_a_file_that_is_gone_later_is_an_outage(by_tls: ByTls, tmp_path: Path) -> None:
    copy = tmp_path / "ca.pem"
    settings = by_tls()
    copy.write_bytes((settings.broker.tls_ca_file or copy).read_bytes())
    settings = by_tls(broker={"tls_ca_file": copy}, database={"tls_ca_file": copy})
    copy.unlink()

    assert isinstance(await broker_fault(settings.broker), Unreachable)
    fault = await database_fault(settings.database)
    assert isinstance(fault, ConnectionError)
    assert classify(fault) is FaultKind.OUTAGE


async def test_a_renewed_certificate_needs_no_restart(
    by_tls: ByTls, keys: Keys, tmp_path: Path
) -> None:
    copy = tmp_path / "ca.pem"
    copy.write_bytes(keys.stranger.file.read_bytes())
    settings = by_tls(broker={"tls_ca_file": copy}).broker
    assert isinstance(await broker_fault(settings), Misconfigured)

    copy.write_bytes(keys.authority.file.read_bytes())

    assert await broker_fault(settings) is None


# The database


async def database_fault(settings: DatabaseSettings) -> BaseException | None:
    engine = make_engine(settings)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        return error
    finally:
        await engine.dispose()
    return None


async def in_words(settings: DatabaseSettings) -> WorkerError:
    fault = await database_fault(settings)
    assert fault is not None
    engine = make_engine(settings)
    words = explain(fault, engine)
    await engine.dispose()
    # Once it has worked: a command waits for the certificate, it is not given up for it.
    assert classify(fault) is FaultKind.OUTAGE, repr(fault)
    return words


@pytest.mark.parametrize("mode", [None, "verify-full", "verify-ca", "require"])
async def test_a_database_of_another_authority_is_refused(
    by_tls: ByTls, keys: Keys, mode: str | None
) -> None:
    url = _database_url(by_tls, mode=mode)
    assert await database_fault(by_tls(database={"url": url}).database) is None

    changed = {"url": url, "tls_ca_file": keys.stranger.file}
    words = await in_words(by_tls(database=changed).database)

    assert isinstance(words, Misconfigured)
    assert "not trusted" in str(words)
    assert "WORKER_DATABASE__TLS_CA_FILE" in str(words)


@pytest.mark.parametrize(
    ("mode", "refused"),
    [(None, True), ("verify-full", True), ("verify-ca", False), ("require", False)],
)
async def test_the_name_of_the_host_counts_with_verify_full(
    by_tls: ByTls, mode: str | None, refused: bool
) -> None:
    url = _database_url(by_tls, mode=mode, host="127.0.0.1")
    settings = by_tls(database={"url": url}).database

    if not refused:
        assert await database_fault(settings) is None
        return
    assert "IP address mismatch" in str(await in_words(settings))


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
async def test_the_authorities_of_the_system_are_those_without_a_file(
    by_tls: ByTls, mode: str
) -> None:
    no_files = {"tls_ca_file": None, "tls_certificate_file": None, "tls_key_file": None}
    changed = {"url": _database_url(by_tls, mode=mode), **no_files}

    assert isinstance(await in_words(by_tls(database=changed).database), Misconfigured)


async def test_a_database_whose_certificate_has_expired_is_refused(
    by_tls: ByTls, keys: Keys, guarded: Harness, guarded_database: PrivatePostgres
) -> None:
    there = guarded_database.state / keys.server.certificate.name
    key = guarded_database.state / keys.server.key.name
    before = there.read_bytes(), key.read_bytes()
    old = keys.authority.pair("old", HOST, expired=True)

    async def put(certificate: bytes, private: bytes) -> None:
        there.write_bytes(certificate)
        key.write_bytes(private)
        await guarded.rows("SELECT pg_reload_conf()")

    async def refused() -> str | None:
        fault = await database_fault(by_tls().database)
        return str(explain(fault, make_engine(by_tls().database))) if fault else None

    await put(old.certificate.read_bytes(), old.key.read_bytes())
    try:
        words = await eventually(refused)
    finally:
        await put(*before)
    assert "expired" in words
    await eventually(lambda: _works(by_tls))


async def _works(by_tls: ByTls) -> bool:
    return await database_fault(by_tls().database) is None


async def test_an_account_may_have_to_log_in_by_certificate(
    guarded: Harness, by_tls: ByTls, keys: Keys
) -> None:
    await guarded.rows("DROP ROLE IF EXISTS certified")
    await guarded.rows("CREATE ROLE certified LOGIN")
    url = _database_url(by_tls, user="certified")
    assert await database_fault(by_tls(database={"url": url}).database) is None

    words = await in_words(by_tls(database={"url": url, **NO_CERTIFICATE}).database)

    assert isinstance(words, Misconfigured)
    assert "certificate" in str(words)
    other = keys.authority.pair("somebody")
    changed = {"tls_certificate_file": other.certificate, "tls_key_file": other.key}
    assert isinstance(
        await in_words(by_tls(database={"url": url, **changed}).database), Misconfigured
    )


async def test_a_server_that_offers_no_tls_is_refused(by_tls: ByTls, server_url: str) -> None:
    # The run's own PostgreSQL has no certificate.
    plain = make_url(server_url)
    url = _database_url(by_tls, host=plain.host, port=plain.port, user=plain.username)

    words = await in_words(by_tls(database={"url": url}).database)

    assert isinstance(words, Misconfigured)
    assert "offers no TLS" in str(words)
