"""A worker goes on where it may not look how many others there are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused

from worker.broker.consumer import partition_balancer
from worker.broker.consumer.partition_balancer import Partitions
from worker.broker.consumer.subscription import Take
from worker.broker.topology import Topology
from worker.settings.settings import BrokerSettings


async def test_who_may_not_count_the_workers_keeps_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RabbitMQ 4.2.6 and 4.3.0 want the right to configure before they tell."""
    asked: list[str] = []

    async def refuse(name: str, *, passive: bool) -> NoReturn:
        asked.append(name)
        raise ChannelAccessRefused("configure access refused")

    async def open_channel(connection: object) -> SimpleNamespace:
        return SimpleNamespace(queue_declare=refuse)

    monkeypatch.setattr(partition_balancer, "open_channel", open_channel)
    monkeypatch.setattr(partition_balancer, "BALANCE_SECONDS", 0)
    served = Partitions(
        Topology("shop", BrokerSettings(), partition_count=3), cast(Take, None), prefetch=10
    )
    active: list[Any] = [SimpleNamespace(active=True, release=pytest.fail) for _ in range(3)]
    monkeypatch.setattr(served, "_partitions", active)

    await asyncio.wait_for(served._keep_balanced(cast(AbstractConnection, None)), 10)

    assert asked == ["shop.commands"]
