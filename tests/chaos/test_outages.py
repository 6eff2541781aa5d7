"""G6 and G1: servers that stop, crash, freeze or forget, and links that break."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.support import probes
from tests.support.harness import Harness, eventually
from worker.database.health import LOOK_SECONDS
from worker.service.service import Service
from worker.testing.proxy import COMMIT, Proxy

RA_DIRECTORY_AUTO_SAVE_SECONDS = 0.5
BACK_WITHIN = 10
"""Seconds after a server's return within which the worker works again (G6)."""


def user(name: str) -> dict[str, str]:
    return {"username": name, "email": f"{name}@example.com"}


async def readiness(service: Service) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{service.health.port}/readyz") as response,
    ):
        body: dict[str, Any] = await response.json()
        assert response.status == (200 if body["ready"] else 503)
        return body


async def not_ready(service: Service, part: str, *, within: float = 40) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = (await readiness(service))["parts"][part]
        return None if found["ready"] else found

    return await eventually(look, within=within)


async def is_back(service: Service, since: float) -> None:
    await eventually(lambda: service.health.ready, within=BACK_WITHIN + 5)
    assert time.monotonic() - since < BACK_WITHIN


@pytest.mark.parametrize(
    ("how", "idle"), [pytest.param("stop", True, marks=pytest.mark.long), ("kill", False)]
)
async def test_commands_wait_while_the_database_is_down(
    breakable: Harness, own_database: PrivatePostgres, how: str, idle: bool
) -> None:
    async with breakable.worker() as service:
        await breakable.ask("user.create", data=user("before"))
        await asyncio.to_thread(getattr(own_database, how))
        if idle:
            await not_ready(service, "database", within=LOOK_SECONDS + 5)
        ids = [await breakable.send("user.create", data=user(f"u{n}")) for n in range(50)]
        found = await not_ready(service, "database")
        assert "PostgreSQL cannot be reached" in found["reason"]
        assert found["since"]
        assert len(breakable.events) == 1

        await asyncio.to_thread(own_database.start)
        back = time.monotonic()
        await is_back(service, back)
        for id_ in ids:
            assert (await breakable.event(id_)).routing_key == "user.created"
    assert await breakable.dead_letters_so_far() == []


@pytest.mark.long
async def test_a_frozen_database_is_an_outage_too(
    breakable: Harness, own_database: PrivatePostgres
) -> None:
    fast = {"statement_timeout_seconds": 1, "connect_timeout_seconds": 1}
    database = breakable.settings.database.model_dump() | fast
    async with breakable.worker(database=database) as service:
        await breakable.ask("user.create", data=user("before"))
        own_database.freeze()
        try:
            id_ = await breakable.send("user.create", data=user("meanwhile"))
            await not_ready(service, "database")
        finally:
            own_database.thaw()
        await is_back(service, time.monotonic())
        assert (await breakable.event(id_)).routing_key == "user.created"
    assert await breakable.dead_letters_so_far() == []


async def test_a_database_that_takes_no_writes_is_waited_for(
    breakable: Harness, own_database: PrivatePostgres
) -> None:
    async with breakable.worker() as service:
        await breakable.rows("ALTER SYSTEM SET default_transaction_read_only = on")
        await breakable.rows("SELECT pg_reload_conf()")
        try:
            id_ = await breakable.send("user.create", data=user("later"))
            found = await not_ready(service, "database")
            assert "no writes" in found["reason"]
        finally:
            await breakable.rows("ALTER SYSTEM RESET default_transaction_read_only")
            await breakable.rows("SELECT pg_reload_conf()")
        await is_back(service, time.monotonic())
        assert (await breakable.event(id_)).routing_key == "user.created"


async def test_killed_backends_cost_nothing_but_time(breakable: Harness) -> None:
    async with breakable.worker():
        ids = []
        for n in range(200):
            ids.append(await breakable.send("user.create", data=user(f"u{n}")))
            if n % 40 == 20:
                await breakable.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE '%worker' AND pid <> pg_backend_pid()"
                )
        for id_ in ids:
            assert (await breakable.event(id_, within=40)).routing_key == "user.created"
    assert await breakable.dead_letters_so_far() == []
    assert len(await breakable.rows("SELECT * FROM users")) == 200


@pytest.mark.parametrize("how", [pytest.param("stop", marks=pytest.mark.long), "kill"])
async def test_commands_survive_a_broker_that_goes_away(
    breakable: Harness, own_broker: PrivateRabbitMQ, how: str
) -> None:
    async with breakable.worker() as service:
        # RabbitMQ 3.10 writes the names of quorum queues and streams to disk half a second after
        # they are declared (the auto_save of ra's directory); a crash before that loses them.
        await asyncio.sleep(2 * RA_DIRECTORY_AUTO_SAVE_SECONDS)
        ids = [await breakable.send("user.create", data=user(f"u{n}")) for n in range(100)]
        await asyncio.to_thread(getattr(own_broker, how))
        found = await not_ready(service, "commands")
        assert found["reason"]
        await not_ready(service, "events")

        await asyncio.to_thread(own_broker.start)
        back = time.monotonic()
        await is_back(service, back)
        async with Harness(breakable.settings) as observer:
            await observer.subscribe()
            late = await observer.ask("user.create", data=user("late"))
            assert late.routing_key == "user.created"
            await eventually(lambda: _count(observer, "SELECT count(*) FROM users", len(ids) + 1))
            # What had been answered before is in the stream; what had not was answered after.
            assert await observer.waiting("dead-letters") == 0


async def _count(harness: Harness, query: str, expected: int) -> bool:
    (row,) = await harness.rows(query)
    return bool(row["count"] == expected)


async def test_a_consumer_that_the_broker_cancels_comes_back(breakable: Harness) -> None:
    async with breakable.worker() as service:
        queue = f"{breakable.settings.namespace}.commands"
        await breakable.channel.queue_delete(queue)
        await eventually(lambda: not service.health.part("commands").ready)
        await is_back(service, time.monotonic())
        assert (await breakable.ask("user.create", data=user("ann"))).routing_key == "user.created"


async def test_events_wait_for_their_stream_to_be_made_again(breakable: Harness) -> None:
    async with breakable.worker() as service:
        await breakable.ask("user.create", data=user("before"))
        # Nobody is bound any more: a subscriber's queue would hide that the stream is gone.
        await breakable.unsubscribe()
        await breakable.channel.queue_delete(f"{breakable.settings.namespace}.events")
        id_ = await breakable.send("user.create", data=user("after"))
        await eventually(lambda: _count(breakable, "SELECT count(*) FROM users", 2))
        await is_back(service, time.monotonic())
        await eventually(lambda: _answered(breakable, id_))
        await breakable.subscribe()
        await breakable.ask("user.create", data=user("later"))


async def _answered(harness: Harness, id_: str) -> bool:
    """Whether the command is acknowledged, which it only is once its event is confirmed."""
    try:
        return await harness.waiting("events") >= 1 and await harness.waiting() == 0
    except ChannelNotFoundEntity:  # the worker may only just learn that its stream is gone
        return False


async def test_a_memory_alarm_is_told_and_waited_out(
    breakable: Harness, own_broker: PrivateRabbitMQ
) -> None:
    async with breakable.worker(entities="tests.support.probes") as service:
        await breakable.ask("user.create", data=user("ann"))
        # A broker in alarm still hands out commands, and blocks whoever publishes next.
        probes.RELEASE.clear()
        id_ = await breakable.send("user.linger", target={"username": "ann"})
        await eventually(lambda: probes.ATTEMPTS[id_] == 1)
        await asyncio.to_thread(own_broker.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            probes.RELEASE.set()
            found = await not_ready(service, "events")
            assert "alarm" in found["reason"]
            assert id_ not in {event.command_id for event in breakable.events}
        finally:
            await asyncio.to_thread(
                own_broker.ctl, "set_vm_memory_high_watermark", "absolute", "1GB"
            )
        await is_back(service, time.monotonic())
        assert (await breakable.event(id_)).routing_key == "user.lingered"


@pytest.mark.parametrize("reply_is_lost", [True, False], ids=["after-commit", "before-commit"])
async def test_a_connection_lost_during_commit_has_one_effect(
    breakable: Harness, own_database: PrivatePostgres, reply_is_lost: bool
) -> None:
    async with Proxy.before(own_database.url) as proxy:
        through = {"url": proxy.through(own_database.url)}
        database = breakable.settings.database.model_dump() | through
        async with breakable.worker(database=database):
            await breakable.ask("user.create", data=user("before"))
            cut = proxy.cut_when(COMMIT, deliver=reply_is_lost)
            target = {"username": "before"}
            for rating in range(20):
                id_ = await breakable.send("user.update", target=target, data={"rating": rating})
                found = await breakable.event(id_, within=30)
                assert found.data["version"] == rating + 2
            assert cut.count == 1
    assert len({event.body for event in breakable.events}) == 21


@pytest.mark.parametrize("reply_is_lost", [True, False], ids=["after", "before"])
async def test_a_connection_lost_during_a_lone_create_has_one_effect(
    breakable: Harness, own_database: PrivatePostgres, reply_is_lost: bool
) -> None:
    """It has no COMMIT: its one statement commits by itself."""
    async with Proxy.before(own_database.url) as proxy:
        through = {"url": proxy.through(own_database.url)}
        database = breakable.settings.database.model_dump() | through
        async with breakable.worker(database=database):
            cut = proxy.cut_when(b"u7@example.com", deliver=reply_is_lost)
            for number in range(10):
                found = await breakable.ask("user.create", data=user(f"u{number}"))
                assert found.routing_key == "user.created"
            assert cut.count == 1
    (row,) = await breakable.rows("SELECT count(*) FROM users")
    assert row["count"] == 10
    assert len({event.body for event in breakable.events}) == 10


@pytest.mark.parametrize("link", ["reset", pytest.param("freeze", marks=pytest.mark.long)])
async def test_a_broken_link_to_the_broker_mends(
    breakable: Harness, own_broker: PrivateRabbitMQ, link: str
) -> None:
    async with Proxy.before(own_broker.url) as proxy:
        broker = breakable.settings.broker.model_dump() | {
            "url": proxy.through(own_broker.url),
            "heartbeat_seconds": 2,
        }
        async with breakable.worker(broker=broker) as service:
            await breakable.ask("user.create", data=user("before"))
            ids = [await breakable.send("user.create", data=user(f"u{n}")) for n in range(100)]
            getattr(proxy, link)()
            await eventually(lambda: not service.health.ready, within=30)
            proxy.reset()
            proxy.heal()
            await is_back(service, time.monotonic())
            for id_ in ids:
                assert (await breakable.event(id_)).routing_key == "user.created"
    assert len(await breakable.rows("SELECT * FROM users")) == 101
    assert await breakable.dead_letters_so_far() == []
