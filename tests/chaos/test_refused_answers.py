"""Answers that RabbitMQ itself does not take: lowered limits, rights, full queues, addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.conftest import make_settings
from tests.support import probes
from tests.support.harness import Harness, creates, eventually
from worker.service import service as service_module
from worker.settings.settings import Settings

OTHER_BROKERS = (
    "amq.rabbitmq.reply-to.g1h3AA5yZXBseUA1NDc3NDkwOAAAB/UAAAAAZMBWMw==.WtJbzl9aeC0mp8vXrB4E7g=="
)
"""As another broker hands it out: RabbitMQ 3.10 ends the connection of whoever publishes to it."""

AS_USUAL = {"max_message_size": 134_217_728, "frame_max": 131_072}


@pytest.fixture
async def settings(own_broker: PrivateRabbitMQ, database: str) -> AsyncIterator[Settings]:
    """On a broker whose limits the test may change."""
    await asyncio.to_thread(own_broker.start)
    yield make_settings(own_broker.url, database)
    for limit, value in AS_USUAL.items():
        await set_limit(own_broker, limit, value)


async def set_limit(broker: PrivateRabbitMQ, name: str, value: int) -> None:
    """For channels and connections to come."""
    await asyncio.to_thread(broker.ctl, "eval", f"application:set_env(rabbit, {name}, {value}).")


@asynccontextmanager
async def answered_neighbours(harness: Harness) -> AsyncIterator[Callable[..., Any]]:
    """A worker; what it is given is sent among others, all of which are answered within 5 s."""
    numbers = iter(range(1_000_000))

    async def send_among_others(send: Callable[[], Any]) -> None:
        first = await harness.send_all(creates(next(numbers) for _ in range(40)))
        await send()
        ids = [*first, *await harness.send_all(creates(next(numbers) for _ in range(40)))]
        sent = time.monotonic()
        for id_ in ids:
            await harness.event(id_, within=sent + 5 - time.monotonic())

    async with harness.worker(lanes=4):
        yield send_among_others
    assert await harness.waiting() == 0


@pytest.mark.parametrize(
    "reply_to",
    [OTHER_BROKERS, "amq.rabbitmq.reply-to.g1g3", "nobody"],
    ids=["of another broker", "malformed", "nobody's"],
)
async def test_an_address_that_ends_connections_costs_its_own_reply(
    harness: Harness, reply_to: str
) -> None:
    async with answered_neighbours(harness) as send_among_others:
        body = {"id": "c", "type": "user.delete", "target": {"id": 1}}
        await send_among_others(lambda: harness.publish(body, reply_to=reply_to))
        await harness.event("c")


@pytest.mark.long
@pytest.mark.parametrize(
    ("limit", "value", "size"), [("max_message_size", 65_536, 200_000), ("frame_max", 8_192, 10)]
)
async def test_a_dead_letter_beyond_a_limit_that_was_lowered_is_kept(
    harness: Harness, own_broker: PrivateRabbitMQ, limit: str, value: int, size: int
) -> None:
    async with harness.worker():
        pass
    body = b'{"id": "c", "type": "user.create", "data": {"nonsense": "%s"}}' % (b"x" * size)
    await harness.publish(body, headers={"tenant": "eu", "long": "x" * 60_000})
    await set_limit(own_broker, limit, value)

    async with answered_neighbours(harness) as send_among_others:
        await send_among_others(lambda: asyncio.sleep(0))
        event = await harness.event("c", within=30)
        (letter,) = await harness.dead_letters(1, within=30)

    assert event.routing_key == "user.create.rejected"
    assert letter.body == body
    assert letter.headers["tenant"] == "eu"
    if limit == "max_message_size":
        death: Any = letter.headers["x-death"]
        assert death[0]["reason"] == "rejected"
    else:
        assert letter.headers["x-code"] == "invalid"
        assert "long" not in letter.headers


@pytest.mark.long
async def test_an_event_that_may_not_be_published_is_set_aside_and_sent_later(
    harness: Harness, own_broker: PrivateRabbitMQ
) -> None:
    events = f"{harness.settings.namespace}.events"
    async with answered_neighbours(harness) as send_among_others:
        await send_among_others(lambda: asyncio.sleep(0))
        # A right on a topic: to be refused one event says nothing of the others.
        rights = ["set_topic_permissions", "guest", events, r"^(?!user\.deleted)", ".*"]
        await asyncio.to_thread(own_broker.ctl, *rights)
        body = {"id": "c", "type": "user.delete", "target": {"username": "1"}}
        await send_among_others(lambda: harness.publish(body))
        (letter,) = await harness.dead_letters(1, within=30)
        assert letter.headers["x-code"] == "event_not_published"
        assert "user.deleted" in str(letter.headers["x-detail"])
        assert not await harness.rows("SELECT 1 FROM users WHERE username = '1'")

        await asyncio.to_thread(own_broker.ctl, "clear_topic_permissions", "guest")
        await harness.publish(letter.body)
        assert (await harness.event("c")).routing_key == "user.deleted"


async def test_a_full_queue_of_a_subscriber_holds_up_only_what_it_would_get(
    harness: Harness,
) -> None:
    async with answered_neighbours(harness) as send_among_others:
        full = await harness.channel.declare_queue(
            exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        await full.bind(f"{harness.settings.namespace}.events", "user.deleted")
        await send_among_others(lambda: asyncio.sleep(0))
        body = {"id": "c", "type": "user.delete", "target": {"username": "1"}}
        await send_among_others(lambda: harness.publish(body))
        (letter,) = await harness.dead_letters(1, within=30)

    assert letter.headers["x-code"] == "event_not_published"


@pytest.mark.long
async def test_commands_go_back_once_while_nothing_can_be_published(
    harness: Harness, own_broker: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "HOLD_SECONDS", 0.5)
    probes.ATTEMPTS.clear()
    probes.RELEASE.clear()
    alarm = ["set_vm_memory_high_watermark", "0.00001"]
    async with harness.worker(entities="tests.support.probes") as service:
        await harness.ask("user.create", data={"username": "a", "email": "a@example.com"})
        id_ = await harness.send("user.linger", target={"username": "a"})
        await eventually(lambda: probes.ATTEMPTS[id_] == 1)
        await asyncio.to_thread(own_broker.ctl, *alarm)
        try:
            probes.RELEASE.set()
            await eventually(harness.waiting, within=30)
            until = time.monotonic() + 3  # several times as long as it was held
            while time.monotonic() < until:
                assert await harness.waiting() == 1, "it is held again, and counted again"
            reason = service.health.part("commands").reason
            assert reason == "answers cannot leave"
        finally:
            alarm[1:] = ["absolute", "1GB"]
            await asyncio.to_thread(own_broker.ctl, *alarm)
        assert (await harness.event(id_)).routing_key == "user.lingered"
        await eventually(lambda: service.health.ready)

    assert probes.ATTEMPTS[id_] == 1
    assert await harness.waiting() == 0
