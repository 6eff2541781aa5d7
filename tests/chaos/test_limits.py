"""A virtual host that may hold no more queues is told as that, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.support.harness import Harness, eventually
from worker.broker import topology_watch
from worker.broker.client import diagnosis
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured


async def limit_queues(broker: PrivateRabbitMQ, most: int) -> None:
    limits = f'{{"max-queues": {most}}}'
    await asyncio.to_thread(broker.ctl, "set_vhost_limits", "-p", "/", limits)


async def test_a_limit_of_queues_is_told_as_what_it_is(
    breakable: Harness, own_broker: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0.2)
    letters = f"{breakable.settings.namespace}.dead-letters"
    await limit_queues(own_broker, 0)
    try:
        with pytest.raises(Misconfigured, match=r"may hold no more.*max-queues"):
            async with breakable.worker():
                pass
        await limit_queues(own_broker, -1)
        async with breakable.worker() as service:
            await limit_queues(own_broker, 0)
            await breakable.channel.queue_delete(letters)
            part = service.health.part("topology")
            await eventually(lambda: "max-queues" in (part.reason or ""))
            reason = str(part.reason)
            await limit_queues(own_broker, -1)
            await eventually(lambda: part.ready)
            assert await breakable.waiting("dead-letters") == 0
    finally:
        await limit_queues(own_broker, -1)

    assert letters in reason
    assert "other arguments" not in reason


async def test_doctor_finds_a_broker_that_takes_nothing(
    breakable: Harness, own_broker: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "CONFIRM_SECONDS", 0.5)
    topology = Topology.of(breakable.settings)

    async def codes() -> set[str]:
        return {it.code async for it in diagnosis.examine_broker(topology, "doctor")}

    assert "broker_blocked" not in await codes()
    await asyncio.to_thread(own_broker.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        await eventually_in("broker_blocked", codes)
    finally:
        await asyncio.to_thread(own_broker.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")


async def eventually_in(code: str, codes: Callable[[], Awaitable[set[str]]]) -> None:
    async def there() -> bool:
        return code in await codes()

    await eventually(there)
