"""Replies: bounded in number and in time, counted where they are lost, and waited for by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiormq.exceptions import ConnectionInternalError, DeliveryError
from pamqp.commands import Basic

from tests.support.fakes import turns, until
from worker.broker.publisher import replies as replies_module
from worker.broker.publisher.publisher import Faults
from worker.broker.publisher.replies import Replies
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured
from worker.core.messages import Publication
from worker.settings.settings import BrokerSettings


class FakePublisher:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.faults: dict[str, BaseException] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, _: object) -> None:
        """There is no connection."""

    async def publish(self, publications: Sequence[Publication]) -> Faults:
        await self.gate.wait()
        self.sent += [each.routing_key for each in publications]
        found = {
            number: self.faults.get(each.routing_key) for number, each in enumerate(publications)
        }
        return {number: fault for number, fault in found.items() if fault is not None}


def make_replies(**options: Any) -> tuple[Replies, FakePublisher]:
    replies = Replies(Topology("worker", BrokerSettings()), **{"most": 3, "seconds": 5, **options})
    publisher = FakePublisher()
    cast(Any, replies)._publisher = publisher
    return replies, publisher


def to(*names: str) -> list[Publication]:
    return [Publication("", name, b"{}") for name in names]


def lost(replies: Replies) -> dict[str, Any]:
    ((_, readings),) = replies.read()
    return {attributes["reason"]: number for attributes, number in readings}


async def test_each_that_is_lost_is_counted_by_why() -> None:
    replies, publisher = make_replies()
    publisher.faults = {
        "forged": ConnectionInternalError("INTERNAL_ERROR"),
        "full": DeliveryError(None, Basic.Nack()),
        "silent": TimeoutError(),
    }
    replies.send(to("forged", "good", "full"))
    replies.send(to("silent"))
    await until(lambda: len(publisher.sent) == 3)
    replies.send(to("silent"))
    await replies.finish()

    assert lost(replies) == {"541": 1, "nack": 1, "full": 1, "silence": 1}


async def test_no_more_than_so_many_are_in_flight() -> None:
    replies, publisher = make_replies()
    publisher.gate.clear()
    replies.send(to("1", "2"))
    replies.send(to("3", "4", "5"))
    assert lost(replies) == {"full": 2}

    publisher.gate.set()
    await until(lambda: len(publisher.sent) == 3)
    await turns()
    replies.send(to("6", "7", "8"))
    await replies.finish()
    assert publisher.sent == ["1", "2", "3", "6", "7", "8"]
    assert lost(replies) == {"full": 2}


async def test_one_that_does_not_leave_is_given_up_in_time() -> None:
    replies, publisher = make_replies(seconds=0.01)
    publisher.gate.clear()
    replies.send(to("1", "2"))
    await until(lambda: lost(replies))
    assert lost(replies) == {"timeout": 2}

    publisher.gate.set()
    replies.send(to("3", "4", "5"))
    await replies.finish()
    assert publisher.sent == ["3", "4", "5"], "what was given up makes room"


async def test_a_stop_waits_for_them_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_module, "LAST_SECONDS", 0.01)
    replies, publisher = make_replies()
    publisher.gate.clear()
    replies.send(to("1"))
    async with asyncio.timeout(1):
        await replies.finish()
    assert publisher.sent == []


async def test_a_connection_is_opened_with_the_first_and_its_lack_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def keep_connected(_: object, name: str, *__: object) -> None:
        asked.append(name)
        raise Misconfigured("refused")

    monkeypatch.setattr(replies_module, "keep_connected", keep_connected)
    replies, _ = make_replies()
    running = asyncio.create_task(replies.run())
    await turns()
    assert asked == []

    replies.send(to("1"))
    await until(lambda: asked == ["worker replies"])
    await turns()
    assert not running.done()
    running.cancel()
    await replies.finish()
