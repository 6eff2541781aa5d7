"""The watch looks, says once what it finds, and ends only with its connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, ConnectionClosed
from pamqp.commands import Queue
from structlog.testing import capture_logs

from tests.support.fakes import turns, until
from worker.broker import topology_watch
from worker.broker.declaration import FoundObjects
from worker.broker.refused_declaration import differs, over_limit
from worker.broker.topology import Topology
from worker.broker.topology_watch import TopologyWatch
from worker.core.errors import Misconfigured, Unreachable
from worker.settings.settings import BrokerSettings
from worker.telemetry.readiness import Component


class FakeDeclaration:
    """A broker of which the test says what is missing, and what it answers."""

    def __init__(self) -> None:
        self.gone: set[tuple[str, str]] = set()
        self.faults: list[Exception] = []
        self.looks = 0
        self.silent = False

    def __call__(self, *_: object) -> FakeDeclaration:
        return self

    async def __aenter__(self) -> FakeDeclaration:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def ensure(self) -> None:
        if self.silent:
            await asyncio.Event().wait()

    async def look(self) -> FoundObjects:
        self.looks += 1
        await self.ensure()
        queues = {"shop.commands": Queue.DeclareOk("shop.commands", 7, 1)}
        return FoundObjects(self.gone, queues)

    async def refuse_strays(self) -> None: ...

    async def declare(self, *, in_use: bool) -> None:
        assert in_use
        if self.faults:
            raise self.faults[0]
        self.gone = set()


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker = FakeDeclaration()
        self.part = Component("topology")
        self.starves = False
        self.connection = SimpleNamespace(is_closed=False)
        monkeypatch.setattr(topology_watch, "Declaration", self.broker)
        monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0)
        topology = Topology("shop", BrokerSettings(connect_timeout_seconds=0.01))
        self.watch = TopologyWatch(topology, self.part)

    def start(self) -> asyncio.Task[Any]:
        async def serve(_: AbstractConnection) -> None:
            await asyncio.Event().wait()

        serving = self.watch.around(serve, self.starving)
        return asyncio.create_task(serving(cast(AbstractConnection, self.connection)))  # type: ignore[arg-type]

    def starving(self, waiting: Mapping[str, int]) -> list[str]:
        return [queue for queue, count in waiting.items() if self.starves and count]

    async def look(self, times: int = 5) -> None:
        seen = self.broker.looks
        await until(lambda: self.broker.looks >= seen + times)
        await turns()

    @property
    def counted(self) -> dict[str, int]:
        return dict(self.watch._counts)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_stays_missing_is_told_and_counted_once(bench: Bench) -> None:
    task = bench.start()
    await bench.look()
    assert bench.part.ready
    bench.broker.gone = {("queue", "shop.events")}
    bench.broker.faults = [Misconfigured("may not make it")]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs() as lines:
        await bench.look(20)
        reason = bench.part.reason
        bench.broker.gone, bench.broker.faults = set(), []
        await bench.look()
    await end(task)

    assert reason == "may not make it"
    assert bench.part.ready
    assert bench.counted == {"queue shop.events": 1}
    assert [line["event"] for line in lines] == [
        "missing on the broker",
        "not ready",
        "there again",
        "ready",
    ]


async def test_what_goes_again_is_counted_again(bench: Bench) -> None:
    task = bench.start()
    for _ in range(3):
        bench.broker.gone = {("exchange", "shop.commands")}
        await bench.look()
        assert bench.part.ready
    await end(task)

    assert bench.counted == {"exchange shop.commands": 3}


async def test_an_answer_that_fails_is_no_end_while_the_connection_lives(bench: Bench) -> None:
    task = bench.start()
    await bench.look()
    bench.broker.faults = [ChannelNotFoundEntity("its node is down or inaccessible")]
    await bench.look()
    assert "inaccessible" in (bench.part.reason or "")
    bench.broker.faults = []
    await bench.look()
    assert bench.part.ready
    bench.connection.is_closed = True
    bench.broker.faults = [ConnectionClosed(320, "gone")]

    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(task, 5)


async def test_a_node_that_answers_nothing_is_left_at_first_and_told_later(bench: Bench) -> None:
    bench.broker.silent = True
    with pytest.raises(Unreachable, match="lost sight of the queue's leader"):
        await asyncio.wait_for(bench.start(), 5)
    assert not bench.part.ready

    bench.broker.silent = False
    task = bench.start()
    await bench.look()
    bench.broker.silent = True
    await until(lambda: "lost sight" in (bench.part.reason or ""))
    bench.broker.silent = False
    await bench.look()
    await end(task)

    assert bench.part.ready


async def test_who_is_given_nothing_subscribes_anew(bench: Bench) -> None:
    task = bench.start()
    await bench.look()
    bench.starves = True
    with pytest.raises(AMQPError, match=r"commands wait in 'shop\.commands'"):
        await asyncio.wait_for(task, 5)
    assert [readings for _, readings in bench.watch.read()][1] == [({}, 1)]


async def test_who_consumed_from_a_deleted_queue_subscribes_anew(bench: Bench) -> None:
    task = bench.start()
    await bench.look()
    bench.broker.gone = {("queue", "shop.commands")}
    with pytest.raises(AMQPError, match=r"'shop\.commands' was deleted"):
        await asyncio.wait_for(task, 5)

    assert bench.broker.gone, "made again on the old connection, nobody is told that it was gone"
    assert bench.counted == {"queue shop.commands": 1}


def test_a_limit_is_told_as_one_and_arguments_as_such() -> None:
    limit = (
        "PRECONDITION_FAILED - cannot declare queue 'shop.events' in vhost '/': "
        "queue limit in vhost '/' (3) is reached"
    )
    told = over_limit("queue", "shop.events", limit)
    assert told is not None
    assert "max-queues" in told
    assert "queue limit in vhost '/' (3) is reached" in told
    reply = (
        "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'shop.commands' in "
        "vhost '/': received '20' but current is '30'"
    )
    assert over_limit("queue", "shop.commands", reply) is None
    assert "DELIVERY_LIMIT" in differs("queue", "shop.commands", reply)
