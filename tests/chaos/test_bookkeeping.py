"""The book-keepers of a chaos run miss nothing themselves, whatever is done to them."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pika
import pytest

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.support.harness import Harness, eventually
from worker.testing.journal import Confirm, Journal, PublishAttempt
from worker.testing.proxy import Proxy
from worker.testing.publisher import CommandPublisher
from worker.testing.snapshot import take_stock

pytestmark = pytest.mark.long


class ObserverProcess:
    def __init__(self, broker_url: str, namespace: str, book: Path) -> None:
        options = ("--broker", broker_url, "--namespace", namespace, "--book", str(book))
        self._command = (sys.executable, "-m", "worker.testing.observer", *options)

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), 30) == b"ready\n"

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        self._process.terminate()
        assert await asyncio.wait_for(self._process.wait(), 30) == 0


@pytest.fixture
async def namespace(own_broker: PrivateRabbitMQ) -> str:
    """Exchanges where each command is an event at once: no worker has to be trusted."""
    await asyncio.to_thread(own_broker.start)
    name = f"test-{uuid.uuid4().hex[:12]}"
    connection = pika.BlockingConnection(pika.URLParameters(own_broker.url))
    channel = connection.channel()
    for exchange in ("commands", "events"):
        channel.exchange_declare(f"{name}.{exchange}", "topic", durable=True)
    channel.exchange_bind(f"{name}.events", f"{name}.commands", "#")
    connection.close()
    return name


def as_event(number: int) -> dict[str, Any]:
    id_ = f"c{number}"
    data = {"id": number, "version": 1}
    return {"id": id_, "commandid": id_, "type": "user.created", "subject": "u/1", "data": data}


async def test_what_was_confirmed_is_observed_through_cuts_kills_and_a_restart(
    own_broker: PrivateRabbitMQ, namespace: str, tmp_path: Path
) -> None:
    async with Proxy.before(own_broker.url) as proxy:
        url = proxy.through(own_broker.url)
        observer = ObserverProcess(url, namespace, tmp_path)
        await observer.start()
        with CommandPublisher(url, namespace, tmp_path) as publisher:
            for number in range(6_000):
                publisher.publish(as_event(number))
                match number:
                    case 1_000 | 1_500 | 2_000:
                        proxy.reset()
                    case 2_500:
                        await observer.kill()
                        await observer.start()
                    case 3_500:
                        await asyncio.to_thread(own_broker.restart)
                if number % 10 == 0:
                    await asyncio.sleep(0.001)
            await asyncio.to_thread(publisher.wait)
        await observer.stop()

    book = Journal.read(tmp_path)
    sent = {f"c{number}" for number in range(6_000)}
    assert {each.id for each in book.attempts} == sent
    assert {each.id for each in book.confirms} == sent
    assert {each.command_id for each in book.events} == sent
    assert {each.event_id for each in book.events} == sent
    assert len(book.attempts) > len(sent), "no cut was felt"
    assert len(book.confirms) == len(sent)


async def test_a_publisher_waits_for_a_queue_and_for_room(
    own_broker: PrivateRabbitMQ, namespace: str, tmp_path: Path
) -> None:
    """Returned and refused messages are no success; order within a connection is kept."""
    connection = pika.BlockingConnection(pika.URLParameters(own_broker.url))
    channel = connection.channel()
    queue = f"{namespace}.full"
    with CommandPublisher(own_broker.url, namespace, tmp_path) as publisher:
        for number in range(5):
            publisher.publish(as_event(number))  # no queue: returned
        with pytest.raises(TimeoutError, match="5 commands were not confirmed"):
            publisher.wait(0.5)
        arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
        channel.queue_declare(queue, arguments=arguments)
        channel.queue_bind(queue, f"{namespace}.events", "#")
        with pytest.raises(TimeoutError):
            publisher.wait(1)
        channel.queue_purge(queue)
        await asyncio.to_thread(publisher.wait)
    connection.close()
    book = Journal.read(tmp_path)
    assert len(book.confirms) == 5
    assert len(book.attempts) > 10


async def test_a_publisher_can_be_stopped_while_the_broker_is_away(tmp_path: Path) -> None:
    with CommandPublisher("amqp://127.0.0.1:1/", "none", tmp_path) as publisher:
        publisher.publish({"id": "c1", "type": "user.create"})
        with pytest.raises(TimeoutError):
            publisher.wait(0.5)
    assert Journal.read(tmp_path) == Journal()


async def test_stock_is_taken_of_queues_rows_and_ledger_and_leaves_them_as_they_were(
    harness: Harness, tmp_path: Path
) -> None:
    settings = harness.settings
    broker_url = settings.broker.url.get_secret_value()
    ann = {"username": "ann", "email": "ann@example.com"}

    def look() -> Journal:
        take_stock(
            tmp_path,
            broker_url=broker_url,
            database_url=settings.database.url.get_secret_value(),
            namespace=settings.namespace,
            tables={"user": "users"},
            partitions=2,
        )
        return Journal.read(tmp_path)

    async with harness.worker():
        done = await harness.ask("user.create", id="c1", data=ann)
        unusable = await harness.ask("user.create", id="c2", data={})
        await eventually(lambda: is_there(harness, "dead-letters", 1))
    with CommandPublisher(broker_url, settings.namespace, tmp_path) as publisher:
        publisher.publish({"id": "c3", "type": "user.create", "key": "k"})
        publisher.publish_body(b"\xff", id_="c4")
        await asyncio.to_thread(publisher.wait)
    many = [{"id": f"c{number}"} for number in range(5, 2_100)]
    async with in_partitions(broker_url, settings.namespace, [[], many]):
        for _ in range(2):
            book = await asyncio.to_thread(look)
            assert [(each.command_id, each.code) for each in book.letters] == [("c2", "invalid")]
            assert book.letters[0].event_id == unusable.json["id"]
            assert [each.command_id for each in book.waiting] == [
                f"c{number}" for number in range(3, 2_100)
            ]
            assert [each.command_id for each in book.ledger] == ["c1", "c2"]
            assert book.ledger[0].event_id == done.json["id"]
            (row,) = book.rows
            assert (row.subject, row.version) == ("user/1", 1)
            assert json.loads(row.values)["email"] == "ann@example.com"
            assert book.stock is not None
            assert book.stock.entities == ["user"]
    assert await harness.waiting("dead-letters") == 1
    assert await harness.waiting() == 2
    assert isinstance(book.attempts[0], PublishAttempt)
    assert book.attempts[0].key == "k"
    assert isinstance(book.confirms[0], Confirm)


@asynccontextmanager
async def in_partitions(
    broker_url: str, namespace: str, partitions: Sequence[Sequence[Mapping[str, str]]]
) -> AsyncIterator[None]:
    """Queues as `WORKER_PARTITIONS` has them, which let nobody get a single message."""
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        for number, commands in enumerate(partitions, start=1):
            queue = await channel.declare_queue(
                f"{namespace}.commands.{number}",
                durable=True,
                arguments={"x-queue-type": "quorum", "x-single-active-consumer": True},
            )
            for command in commands:
                message = aio_pika.Message(json.dumps(command).encode())
                await channel.default_exchange.publish(message, queue.name)
        yield
        for number in range(1, len(partitions) + 1):
            await channel.queue_delete(f"{namespace}.commands.{number}")


async def is_there(harness: Harness, queue: str, count: int) -> bool:
    return await harness.waiting(queue) == count
