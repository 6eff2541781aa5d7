"""Each account of docs/security.md can do its work, and no more."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused

from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.security.conftest import broker_url_of, database_url, environment_of
from tests.support.commandline import CommandLine
from tests.support.doc_lines import PASSWORD, block
from tests.support.harness import Harness, eventually
from worker.broker.publisher.publisher import Publisher
from worker.core.errors import Misconfigured
from worker.core.messages import Publication
from worker.database.engine import make_engine, make_sessions
from worker.database.ledger_retention import prune
from worker.settings.settings import DatabaseSettings, Settings

Attempt = Callable[[AbstractChannel], Awaitable[object]]


async def test_a_worker_with_few_rights_does_all_its_work(
    restricted: Harness, few: dict[str, Any]
) -> None:
    async with restricted.worker(**few):
        created = await restricted.ask(
            "user.create", data={"username": "ann", "email": "ann@example.com"}
        )
        again = await restricted.send("user.update", target={"username": "ann"}, data={"rating": 1})
        updated = await restricted.event(again)
        await restricted.send(
            "user.update", id=again, target={"username": "ann"}, data={"rating": 1}
        )
        replayed = await restricted.event(again, number=2)
        order = await restricted.ask("order.create", data={"user": {"username": "ann"}})
        refused = await restricted.ask("user.delete", target={"username": "ann"})
        unknown = await restricted.ask("user.fly")
        answer = await _answer_to_a_reply(restricted)
        letters = await restricted.dead_letters(1)

    assert [it.routing_key for it in (created, updated, order)] == [
        "user.created",
        "user.updated",
        "order.created",
    ]
    assert replayed.body == updated.body
    assert refused.data["code"] == "conflict"
    assert unknown.data["code"] == "unknown_type"
    assert letters[0].headers["x-code"] == "unknown_type"
    assert answer == "order.deleted"


async def _answer_to_a_reply(harness: Harness) -> str:
    queue = await harness.channel.declare_queue(exclusive=True)
    await harness.publish(
        {"type": "order.delete", "target": {"id": 1}, "id": "with a reply"}, reply_to=queue.name
    )
    message = await eventually(lambda: queue.get(fail=False, no_ack=True))
    return message.type or ""


async def test_the_ledger_is_pruned_with_few_rights(
    restricted: Harness, database_accounts: PrivatePostgres
) -> None:
    url = database_url(database_accounts, "worker_run")
    engine = make_engine(DatabaseSettings.model_validate({"url": url}))
    await restricted.rows(
        "INSERT INTO command_ledger (command_id, digest, outcome, event_id, event_type,"
        " event_body, recorded_on) VALUES ('old', sha256(''), 'done', gen_random_uuid(), 't',"
        " '{}', now() - interval '100 days')"
    )

    async with make_sessions(engine).begin() as session:
        await prune(session, timedelta(days=7))
    await engine.dispose()

    assert await restricted.rows("SELECT 1 FROM command_ledger") == []


# The database


MUST_NOT = (
    "ALTER TABLE users ADD COLUMN backdoor text",
    "ALTER TABLE users DISABLE TRIGGER ALL",
    "ALTER TABLE users OWNER TO worker_run",
    "DROP TABLE users CASCADE",
    "TRUNCATE command_ledger",
    "CREATE INDEX ON users (rating)",
    "CREATE TRIGGER spy BEFORE UPDATE ON users FOR EACH ROW"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE mine (id int)",
    "CREATE TEMPORARY TABLE mine (id int)",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "UPDATE alembic_version SET version_num = 'x'",
    "SET ROLE worker_owner",
    "ALTER ROLE worker_run SUPERUSER",
    "CREATE ROLE friend",
    "COPY users TO PROGRAM 'cat'",
    "COPY users FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
)


async def test_the_run_time_role_cannot_do_more_than_its_work(
    database_accounts: PrivatePostgres,
) -> None:
    connection = await _connect(database_accounts, "worker_run")
    allowed = []
    for statement in MUST_NOT:
        try:
            await connection.execute(statement)
            allowed.append(statement)
        except asyncpg.InsufficientPrivilegeError:
            pass
    await connection.close()

    assert allowed == []


async def test_the_run_time_role_owns_nothing(restricted: Harness) -> None:
    owners = await restricted.rows(
        "SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
    )

    assert [row["owner"] for row in owners] == ["worker_owner"]


async def test_what_a_later_migration_adds_may_be_used_at_once(
    restricted: Harness, database_accounts: PrivatePostgres
) -> None:
    owner = await _connect(database_accounts, "worker_owner")
    run = await _connect(database_accounts, "worker_run")
    await owner.execute("CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY, word text)")
    try:
        await run.execute("INSERT INTO later (word) VALUES ('new')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await run.execute("DROP TABLE later")
    finally:
        await owner.execute("DROP TABLE later")
        await owner.close()
        await run.close()


async def test_nobody_else_gets_into_the_database(
    restricted: Harness, database_accounts: PrivatePostgres
) -> None:
    await restricted.rows(f"CREATE ROLE nosy LOGIN PASSWORD '{PASSWORD}'")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _connect(database_accounts, "nosy")
    finally:
        await restricted.rows("DROP ROLE nosy")


async def _connect(server: PrivatePostgres, account: str) -> Any:
    return await asyncpg.connect(
        host="127.0.0.1", port=server.port, user=account, password=PASSWORD, database="shop"
    )


# The broker


def publish(exchange: str, routing_key: str = "user.created") -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        target = (
            await channel.get_exchange(exchange, ensure=False)
            if exchange
            else channel.default_exchange
        )
        await target.publish(aio_pika.Message(b"{}"), routing_key)

    return attempt


def get(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        message = await (await channel.get_queue(queue, ensure=False)).get(fail=False)
        if message is not None:
            await message.nack()

    return attempt


def consume(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await channel.set_qos(1)
        found = await channel.get_queue(queue, ensure=False)

        async def give_back(message: AbstractIncomingMessage) -> None:
            await message.nack()

        tag = await found.consume(give_back)
        await found.cancel(tag)

    return attempt


def declare(queue: str, **arguments: Any) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await channel.declare_queue(queue, **arguments)

    return attempt


def declare_exchange(name: str) -> Attempt:
    return lambda channel: channel.declare_exchange(name)


def bind(queue: str, exchange: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).bind(exchange, "spy.#")

    return attempt


def unbind(queue: str, exchange: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).unbind(exchange, "#")

    return attempt


def delete(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await channel.queue_delete(queue)

    return attempt


def purge(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).purge()

    return attempt


COMMANDS, EVENTS, LETTERS = "worker.commands", "worker.events", "worker.dead-letters"
NOBODY_MAY: Mapping[str, Attempt] = {
    **{f"delete {queue}": delete(queue) for queue in (COMMANDS, EVENTS, LETTERS)},
    **{f"unbind {name}": unbind(name, name) for name in (COMMANDS, EVENTS)},
    "make a queue in the namespace": declare("worker.commands.spy"),
    "make an exchange": declare_exchange("worker.spy"),
    "make a queue that dead-letters elsewhere": declare(
        "spy", arguments={"x-dead-letter-exchange": COMMANDS}
    ),
    "bind the dead letters to the commands": bind(LETTERS, COMMANDS),
    "bind the commands to the events": bind(COMMANDS, EVENTS),
    "bind the events to the commands": bind(EVENTS, COMMANDS),
}
FORBIDDEN: Mapping[str, Mapping[str, Attempt]] = {
    "worker_run": {
        "read events": consume(EVENTS),
        "read dead letters": get(LETTERS),
        "empty the dead letters": purge(LETTERS),
        "send commands": publish(COMMANDS),
        "make a queue of its own": declare("mine"),
    },
    "worker_operator": {
        "take commands": get(COMMANDS),
        "consume commands": consume(COMMANDS),
        "read events": consume(EVENTS),
        "forge an event": publish(EVENTS),
        "forge a dead letter": publish("", LETTERS),
        "make a queue of its own": declare("mine"),
    },
    "shop": {
        "take commands": get(COMMANDS),
        "empty the commands": purge(COMMANDS),
        "read events": consume(EVENTS),
        "read dead letters": get(LETTERS),
        "forge an event": publish(EVENTS),
        "forge a dead letter": publish("", LETTERS),
        "go around the exchange": publish("", COMMANDS),
        "make a queue of its own": declare("mine"),
    },
    "billing": {
        "send commands": publish(COMMANDS),
        "forge an event": publish(EVENTS),
        "forge a dead letter": publish("", LETTERS),
        "take commands": get(COMMANDS),
        "read dead letters": get(LETTERS),
        "bind its queue to the commands": bind("billing.events", COMMANDS),
        "make a queue of another name": declare("mine"),
    },
}
ALLOWED: Mapping[str, Mapping[str, Attempt]] = {
    "worker_run": {
        "take commands": get(COMMANDS),
        "publish events": publish(EVENTS),
        # Exchange and queue share a name, and so their rights: the page says so.
        "bind the events to the commands": bind(EVENTS, COMMANDS),
    },
    "worker_operator": {"send commands": publish(COMMANDS), "read dead letters": get(LETTERS)},
    "shop": {"send commands": publish(COMMANDS)},
    "billing": {
        "make a queue": declare("billing.events", exclusive=False, auto_delete=True),
        "bind it to the events": bind("billing.events", EVENTS),
        "read from it": get("billing.events"),
    },
}


@pytest.mark.parametrize("account", FORBIDDEN)
async def test_a_broker_account_can_do_its_work_and_no_more(
    restricted: Harness, broker_accounts: PrivateRabbitMQ, account: str
) -> None:
    connection = await aio_pika.connect(broker_url_of(broker_accounts, account))
    async with connection:
        refused = {
            name: await _is_refused(connection, attempt)
            for name, attempt in {**NOBODY_MAY, **ALLOWED[account], **FORBIDDEN[account]}.items()
        }

    assert {name for name, it in refused.items() if not it} == set(ALLOWED[account])


async def _is_refused(connection: Any, attempt: Attempt) -> bool:
    try:
        async with connection.channel() as channel:
            await attempt(channel)
    except ChannelAccessRefused:
        return True
    return False


async def test_a_worker_that_may_not_publish_events_says_so_and_stays_unready(
    restricted: Harness,
    few: dict[str, Any],
    broker_accounts: PrivateRabbitMQ,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rights = next(
        line
        for line in block("sh", "rabbitmqctl").splitlines()
        if " worker_run " in line and "set_p" in line
    )
    _, *as_documented = shlex.split(rights)
    configure, write, read = as_documented[-3:]
    attempts = []
    publish_apart = Publisher.publish_apart

    async def counted(self: Publisher, publication: Publication) -> BaseException | None:
        attempts.append(publication)
        return await publish_apart(self, publication)

    monkeypatch.setattr(Publisher, "publish_apart", counted)
    without = [*as_documented[:2], configure, write.replace("worker\\.events", "nothing"), read]
    await asyncio.to_thread(broker_accounts.ctl, *without)
    async with restricted.worker(**few) as service:
        events = service.health.part("events")
        id_ = await restricted.send("user.delete", target={"id": 7})
        await eventually(lambda: "set_permissions" in (events.reason or ""))
        since = events.since
        await eventually(lambda: len(attempts) > 2)
        assert events.since == since, "a new connection was taken for the mending of it"

        await asyncio.to_thread(broker_accounts.ctl, *as_documented)
        refused = await restricted.event(id_)
        await eventually(lambda: events.ready)

    assert refused.data["code"] == "not_found"


async def test_a_publisher_gets_the_answer_that_it_asks_for(
    restricted: Harness, few: dict[str, Any], broker_accounts: PrivateRabbitMQ
) -> None:
    connection = await aio_pika.connect(broker_url_of(broker_accounts, "shop"))
    answers: list[AbstractIncomingMessage] = []

    async def take(answer: AbstractIncomingMessage) -> None:
        answers.append(answer)

    async with connection, restricted.worker(**few):
        channel = await connection.channel()
        replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await replies.consume(take, no_ack=True)
        exchange = await channel.get_exchange(COMMANDS, ensure=False)
        body = b'{"type": "user.create", "data": {"username": "bo", "email": "bo@example.com"}}'
        await exchange.publish(
            aio_pika.Message(body, message_id="asked", reply_to="amq.rabbitmq.reply-to"), "any"
        )
        await eventually(lambda: answers)

    assert answers[0].type == "user.created"


async def test_an_operator_sets_things_right(
    restricted: Harness,
    few: dict[str, Any],
    broker_accounts: PrivateRabbitMQ,
    database_accounts: PrivatePostgres,
) -> None:
    operator: Settings = restricted.settings.model_copy(
        update={
            "broker": restricted.settings.broker.model_copy(
                update={
                    "declare": False,
                    "url": type(restricted.settings.broker.url)(
                        broker_url_of(broker_accounts, "worker_operator")
                    ),
                }
            ),
            "database": DatabaseSettings.model_validate(
                {"url": database_url(database_accounts, "worker_run")}
            ),
        }
    )
    cli = CommandLine(environment_of(operator))
    async with restricted.worker(**few):
        await restricted.ask("user.create", id="mend me", data={"username": "cy"})
        listed = await cli("dead-letters", "list")
        await cli("dead-letters", "redrive", "1", "--set", "data.email=cy@example.com")
        mended = await restricted.event("mend me", number=2)
        # Events are the worker's to send.
        await cli("ledger", "republish", "mend me", WORKER_BROKER__URL=few["broker"]["url"])
        await restricted.event("mend me", number=3)

    assert "invalid" in listed.out
    assert mended.routing_key == "user.created"


async def test_doctor_sees_enough_with_few_rights(restricted: Harness, few: dict[str, Any]) -> None:
    cli = CommandLine(environment_of(restricted.settings))
    urls = {
        "WORKER_BROKER__URL": few["broker"]["url"],
        "WORKER_BROKER__DECLARE": "false",
        "WORKER_DATABASE__URL": few["database"]["url"],
    }
    result = await cli("doctor", "--json", code=None, **urls)

    assert {it["code"] for it in result.lines if it["level"] == "problem"} <= {"durability"}
    assert "could not be looked at" not in result.out


async def test_a_worker_that_must_declare_and_may_not_says_so(
    restricted: Harness, few: dict[str, Any]
) -> None:
    broker = few["broker"] | {"declare": True}

    with pytest.raises(Misconfigured, match="WORKER_BROKER__DECLARE=false"):
        async with restricted.worker(broker=broker):
            pass
