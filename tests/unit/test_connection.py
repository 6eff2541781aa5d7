"""Supervision: whatever ends a connection, another follows, and only we can stop that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelAccessRefused,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
)
from yarl import URL

from tests.support.fakes import NO_WAIT, until
from worker.broker import connection as connection_module
from worker.broker.connection import keep_connected
from worker.broker.errors import explain
from worker.core.errors import Misconfigured, Unreachable
from worker.settings.settings import BrokerSettings
from worker.telemetry.readiness import Component


class Bench:
    """A broker whose connections, one after the other, end as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.part = Component("commands")
        self.connects: list[BaseException | None] = []
        self.serves: list[Callable[[], None]] = []
        self.served = 0
        monkeypatch.setattr(connection_module, "connect", self.connect)
        monkeypatch.setattr(connection_module, "RECONNECT", NO_WAIT)

    @asynccontextmanager
    async def connect(self, *_: object) -> AsyncIterator[AbstractConnection]:
        error = self.connects.pop(0) if self.connects else None
        if error is not None:
            raise error
        yield cast(AbstractConnection, object())

    async def serve(self, _: AbstractConnection) -> None:
        self.served += 1
        if self.serves:
            self.serves.pop(0)()
            return
        self.part.up()
        await asyncio.Event().wait()

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(keep_connected(BrokerSettings(), "test", self.part, self.serve))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def ready_again(bench: Bench, task: asyncio.Task[None], served: int) -> None:
    await until(lambda: task.done() or bench.served == served)
    if task.done():
        task.result()
    assert bench.part.ready


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("away"),
        AMQPError("lost"),
        AMQPConnectionError("lost"),
        ConnectionResetError("reset"),
        TimeoutError(),
        RuntimeError("closed"),
        ValueError("not foreseen"),
    ],
    ids=repr,
)
async def test_any_failure_to_serve_is_followed_by_another_connection(
    bench: Bench, error: Exception
) -> None:
    def fail() -> None:
        raise error

    bench.serves = [fail, fail]
    task = bench.start()
    await ready_again(bench, task, 3)
    await end(task)


async def test_a_right_that_the_account_lacks_ends_it_at_first_and_is_an_outage_later(
    bench: Bench,
) -> None:
    def refused() -> None:
        raise ChannelAccessRefused("access to queue 'worker.commands' refused")

    bench.serves = [refused]
    with pytest.raises(Misconfigured, match=r"'worker\.commands' refused.*set_permissions"):
        await asyncio.wait_for(bench.start(), 5)

    def worked() -> None:
        bench.part.up()
        raise AMQPError("lost")

    bench.serves = [worked, refused]
    task = bench.start()
    await ready_again(bench, task, bench.served + 3)
    await end(task)


async def test_a_broker_that_is_away_is_waited_for_and_the_reason_told(bench: Bench) -> None:
    bench.connects = [Unreachable("no broker"), Unreachable("no broker"), None]
    task = bench.start()
    await until(lambda: bench.part.reason == "no broker")
    await ready_again(bench, task, 1)
    await end(task)


async def test_a_connection_that_just_ends_is_not_ready(bench: Bench) -> None:
    seen: list[bool] = []
    bench.serves = [bench.part.up, lambda: seen.append(bench.part.ready)]
    task = bench.start()
    await ready_again(bench, task, 3)

    assert seen == [False]
    await end(task)


async def test_a_setting_that_cannot_work_is_raised_at_first(bench: Bench) -> None:
    bench.connects = [Unreachable("booting"), Misconfigured("wrong password")]
    with pytest.raises(Misconfigured, match="wrong password"):
        await asyncio.wait_for(bench.start(), 5)


async def test_a_setting_that_has_worked_is_waited_for(bench: Bench) -> None:
    def lost() -> None:
        bench.part.up()
        raise AMQPError("lost")

    bench.serves = [lost]
    bench.connects = [None, Misconfigured("the account is being changed")]
    task = bench.start()
    await ready_again(bench, task, 2)
    await end(task)


async def test_a_setting_that_has_worked_is_waited_for_though_trouble_came_before_the_end(
    bench: Bench,
) -> None:
    def troubled() -> None:
        bench.part.up()
        bench.part.down("the broker refuses messages: a queue is full")
        raise AMQPError("lost")

    bench.serves = [troubled]
    bench.connects = [None, Misconfigured("the vhost is not up yet")]
    task = bench.start()
    await ready_again(bench, task, 2)
    await end(task)


async def test_a_cancellation_by_the_library_does_not_end_the_supervision(bench: Bench) -> None:
    def cancelled() -> None:
        # aiormq raises this in calls that wait for an answer when a frozen link is given up.
        raise asyncio.CancelledError

    bench.serves = [cancelled]
    task = bench.start()
    await ready_again(bench, task, 2)
    await end(task)


async def test_our_own_cancellation_ends_it(bench: Bench) -> None:
    task = bench.start()
    await ready_again(bench, task, 1)
    await end(task)


URL_WITH_SECRET = URL("amqp://ann:s3cret@rabbit:5672/shop?heartbeat=10")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ProbableAuthenticationError("ACCESS_REFUSED"), Misconfigured, "WORKER_BROKER__URL"),
        (ConnectionNotAllowed("vhost shop not found"), Misconfigured, "add_vhost"),
        (ConnectionNotAllowed("user connection limit (9) is reached"), Unreachable, "limit (9)"),
        (ConnectionRefusedError("refused"), Unreachable, "cannot be reached"),
        (TimeoutError(), Unreachable, "no answer in time"),
        (AMQPConnectionError(), Unreachable, "AMQPConnectionError"),
    ],
)
def test_a_broker_that_cannot_be_used_is_explained_without_its_password(
    error: BaseException, kind: type[Exception], says: str
) -> None:
    explained = explain(error, URL_WITH_SECRET)

    assert type(explained) is kind
    assert says in str(explained)
    assert "rabbit:5672/shop" in str(explained)
    assert "s3cret" not in str(explained)
