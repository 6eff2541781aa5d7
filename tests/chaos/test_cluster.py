"""G1 to G3 and G6 on three nodes of RabbitMQ, of which one dies, or each is replaced in turn."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from dev.servers.cluster import ClusterNode, RabbitMQCluster
from tests.chaos.test_outages import BACK_WITHIN
from tests.conftest import make_settings
from tests.support.harness import Harness, eventually
from tests.support.steady import Steady
from worker.service.service import Service

pytestmark = pytest.mark.long

STEADY = 40
"""Commands between one step and the next."""


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RabbitMQCluster]:
    nodes = RabbitMQCluster(tmp_path_factory.mktemp("cluster"))
    await asyncio.to_thread(nodes.start)
    yield nodes
    await asyncio.to_thread(nodes.remove)


@pytest.fixture
async def on_cluster(cluster: RabbitMQCluster, database: str) -> AsyncIterator[Harness]:
    """A harness for a worker that knows all nodes."""
    async with Harness(make_settings(cluster.url, database)) as harness:
        yield harness


@pytest.mark.timeout(240)
async def test_nodes_die_and_are_replaced_under_load(
    on_cluster: Harness, cluster: RabbitMQCluster
) -> None:
    """First a crash of the node that holds the leader, then the others as in a rolling upgrade."""
    steady = Steady(on_cluster.settings.broker.urls, on_cluster.settings.namespace)
    queue = f"{on_cluster.settings.namespace}.commands"
    async with on_cluster.worker() as service:
        before = await asyncio.to_thread(cluster.look)
        assert [len(replicas.members) for replicas in before.values()] == [3, 3, 3]
        leader = before[queue].leader
        async with steady.sending():
            await answered(on_cluster, await steady.after(STEADY))
            killed = time.monotonic()
            await asyncio.to_thread(leader.kill)
            await works_again(on_cluster, service, steady, since=killed)
            await asyncio.to_thread(leader.start)

            for node in cluster.nodes:
                if node is not leader:
                    # Not before the queues can do without this one.
                    await asyncio.to_thread(node.await_others)
                    stopped = time.monotonic()
                    await asyncio.to_thread(node.stop)
                    await works_again(on_cluster, service, steady, since=stopped)
                    await asyncio.to_thread(node.start)
            await answered(on_cluster, await steady.after(STEADY))
        await answered(on_cluster, *steady.confirmed)
    await nothing_is_lost_and_nothing_twice(on_cluster, steady, through=leader)


async def answered(harness: Harness, *ids: str) -> None:
    """Wait until all these commands are in the ledger."""

    async def look() -> bool:
        query = "SELECT count(*) FROM command_ledger WHERE command_id = ANY($1)"
        (row,) = await harness.rows(query, ids)
        return bool(row["count"] == len(ids))

    await eventually(look, within=BACK_WITHIN + 10)


async def works_again(harness: Harness, service: Service, steady: Steady, *, since: float) -> None:
    """A command that came after the fault is carried out, and the worker is ready, in time."""
    await answered(harness, await steady.after(STEADY))
    await eventually(lambda: service.health.ready, within=BACK_WITHIN)
    assert time.monotonic() - since < BACK_WITHIN


async def nothing_is_lost_and_nothing_twice(
    harness: Harness, steady: Steady, *, through: ClusterNode
) -> None:
    ids = set(steady.confirmed)
    users = await harness.rows("SELECT username FROM users")
    assert sorted(user["username"] for user in users) == sorted(ids)

    connection = await aio_pika.connect(through.url)
    async with connection:
        bodies = await recorded(connection, harness.settings.namespace, len(ids))
        assert bodies.keys() == ids
        assert {len(distinct) for distinct in bodies.values()} == {1}
        created = {json.loads(body)["type"] for (body,) in bodies.values()}
        assert created == {"user.created"}
        channel = await connection.channel()
        for name in ("commands", "dead-letters"):
            left = await channel.declare_queue(f"{harness.settings.namespace}.{name}", passive=True)
            assert left.declaration_result.message_count == 0


async def recorded(
    connection: AbstractConnection, namespace: str, ids: int
) -> dict[str, set[bytes]]:
    """The distinct events that the stream holds for each command; waits for that many commands."""
    bodies: dict[str, set[bytes]] = defaultdict(set)

    async def collect(message: AbstractIncomingMessage) -> None:
        bodies[json.loads(message.body)["commandid"]].add(message.body)
        await message.ack()

    channel = await connection.channel()
    await channel.set_qos(prefetch_count=500)
    stream = await channel.get_queue(f"{namespace}.events")
    await stream.consume(collect, arguments={"x-stream-offset": "first"})
    await eventually(lambda: len(bodies) >= ids)
    await channel.close()
    return bodies
