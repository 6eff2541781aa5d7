"""Whatever the broker answers to one message holds up that message alone (G5, its second line)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from aio_pika.abc import AbstractQueue
from pamqp.commands import Basic

from tests.support.answering_proxy import ANSWERS, AnsweringProxy
from tests.support.harness import Harness, eventually
from worker.broker.publisher import persistent_publisher
from worker.core.backoff import Backoff
from worker.service.service import Service

CULPRIT = {"username": "culprit", "email": "culprit@example.com"}
KINDS = ("event", "reply", "dead letter")
ANSWERED_SECONDS = 5

QUICK = {
    ("406", "event"),
    ("541 connection", "reply"),
    ("nack", "dead letter"),
    ("silence", "reply"),
}
MATRIX = [
    pytest.param(
        answer,
        kind,
        marks=() if (answer, kind) in QUICK else pytest.mark.long,
        id=f"{answer}-{kind}",
    )
    for answer in ANSWERS
    for kind in KINDS
]


def is_culprit(kind: str) -> Callable[[Basic.Publish, bytes], bool]:
    def judge(method: Basic.Publish, body: bytes) -> bool:
        found = {
            "event": method.exchange.endswith(".events"),
            "reply": method.routing_key == "asker-of-the-culprit",
            "dead letter": method.routing_key.endswith(".dead-letters"),
        }
        return found[kind] and b"culprit" in body

    return judge


@pytest.fixture
async def replies(harness: Harness) -> AbstractQueue:
    """Where neighbours want their replies."""
    return await harness.channel.declare_queue(exclusive=True)


def worker(harness: Harness, proxy: AnsweringProxy) -> Any:
    broker = harness.settings.broker.model_dump() | {
        "url": proxy.url,
        "confirm_timeout_seconds": 5,
    }
    return harness.worker(broker=broker, lanes=4, group_size=16)


async def send_culprit(harness: Harness, kind: str) -> None:
    data = CULPRIT | ({"nonsense": 1} if kind == "dead letter" else {})
    await harness.publish(
        {"id": "culprit", "type": "user.create", "data": data},
        reply_to="asker-of-the-culprit" if kind == "reply" else None,
    )


async def send_among_neighbours(harness: Harness, replies: AbstractQueue, kind: str | None) -> None:
    """A culprit of this kind, if any, amid many others, each of which is answered in time."""
    name = str(time.monotonic_ns())
    users = [
        {"type": "user.create", "data": {"username": f"{name}-{n}", "email": f"{name}-{n}@b.de"}}
        for n in range(60)
    ]
    broken = [{"type": "user.create", "data": {"username": f"{name}-broken-{n}"}} for n in range(8)]
    ids = await harness.send_all(users[:30])
    if kind is not None:
        await send_culprit(harness, kind)
    ids += await harness.send_all([*users[30:], *broken])
    for n in range(8):
        body = {"id": f"{name}-asks-{n}", "type": "user.delete", "target": {"username": f"{n}"}}
        await harness.publish(body, reply_to=replies.name)
        ids.append(str(body["id"]))
    sent = time.monotonic()
    for id_ in ids:
        await harness.event(id_, within=sent + ANSWERED_SECONDS - time.monotonic())
    for _ in range(8):  # that asked for a reply
        await eventually(
            lambda: replies.get(no_ack=True, fail=False),
            within=sent + ANSWERED_SECONDS - time.monotonic(),
        )


async def check_settled(harness: Harness, service: Service, kind: str, answer: str) -> None:
    """Nothing is left of the culprit, and nothing of it is lost."""
    if kind == "reply":
        await harness.event("culprit")
        reason = {"return": "returned"}.get(answer, answer.split(maxsplit=1)[0])
        await eventually(lambda: _metric(service, "worker.replies.lost").get(reason))
        return
    await eventually(lambda: service.health.ready, within=30)
    if kind == "dead letter":
        await harness.event("culprit")
    assert _metric(service, "worker.answers.held") == {None: 0}
    letters = {letter.json.get("id"): letter for letter in await harness.dead_letters_so_far()}
    headers = letters["culprit"].headers
    if kind == "dead letter":
        # The broker's own dead-lettering: it says no more than that it was rejected.
        death: Any = headers["x-death"]
        assert death[0]["reason"] == "rejected"
    else:
        assert headers["x-code"] == "event_not_published"
        assert "user.created" in str(headers["x-detail"])


def _metric(service: Service, name: str) -> dict[str | None, Any]:
    """The values of an instrument, by their reason where they have one."""
    readings = {instrument.name: readings for instrument, readings in service._settlement.read()}
    return {attributes.get("reason"): value for attributes, value in readings[name]}


@pytest.mark.parametrize(("answer", "kind"), MATRIX)
async def test_no_answer_of_the_broker_stops_others(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    replies: AbstractQueue,
    answer: str,
    kind: str,
) -> None:
    proxy = AnsweringProxy(str(harness.settings.broker.urls[0]), is_culprit(kind), answer)
    monkeypatch.setattr(persistent_publisher, "RECONNECT", Backoff(600, 600))
    monkeypatch.setattr(persistent_publisher, "ALONE_SECONDS", 1)
    async with proxy:
        async with worker(harness, proxy) as service:
            await send_among_neighbours(harness, replies, kind)
            assert proxy.answered
            if kind != "reply":
                await eventually(lambda: not service.health.ready)
                assert "cannot leave" in str(service.health.part("answers").reason)
        if kind != "reply":
            # Not alone: RabbitMQ 3.10 forgets acknowledgements that come just before the end.
            assert await eventually(harness.waiting)

        # After a restart it comes first, and others with it.
        monkeypatch.setattr(persistent_publisher, "RECONNECT", Backoff(0.05, 0.5))
        again = kind if kind == "reply" else None  # the others are in the queue
        sending = asyncio.create_task(send_among_neighbours(harness, replies, again))
        async with worker(harness, proxy) as service:
            await sending
            await check_settled(harness, service, kind, answer)
        assert await harness.waiting() == 0
