"""A small drain with the real servers: what is counted, checked and left behind."""

from __future__ import annotations

import sys
from dataclasses import replace

import aio_pika
import asyncpg
import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from dev.benchmarks.arena import Place, fresh_arena
from dev.benchmarks.catalogue import CONTENDERS
from dev.benchmarks.drain import drain
from dev.benchmarks.process import ContenderFailed
from dev.benchmarks.tally import Tally
from dev.databases import dsn

pytestmark = [pytest.mark.long, pytest.mark.servers]

COMMANDS = 200

# It answers the first command again in place of the last one, which it does not acknowledge.
LIAR = f"""
import json, os, pika
connection = pika.BlockingConnection(pika.URLParameters(os.environ["BENCH_BROKER_URL"]))
channel = connection.channel()
channel.basic_qos(prefetch_count=100)
first = None
for method, _, body in channel.consume(os.environ["BENCH_QUEUE"]):
    first = first or json.loads(body)["id"]
    last = method.delivery_tag == {COMMANDS}
    event = {{"type": "user.created", "commandid": first if last else json.loads(body)["id"]}}
    channel.basic_publish(os.environ["BENCH_EVENTS"], "user.created", json.dumps(event))
    if not last:
        channel.basic_ack(method.delivery_tag)
"""


@pytest.fixture
def place(broker_url: str, server_url: str, template_database: str) -> Place:
    return Place(broker_url, server_url, template_database)


# Of fewer, the contender may be through with all before a busy machine lets the observer see the
# first events, from which on CPU time is counted.
@pytest.mark.parametrize("name", ["worker-change", "nothing"])
async def test_each_command_is_answered_once_and_the_rate_is_counted(
    place: Place, name: str
) -> None:
    run = await drain(CONTENDERS[name], place, commands=10_000, seed=1)
    assert run.tally == Tally()
    assert run.rate > 20
    if sys.platform == "linux":
        assert run.usage.contender is not None
        assert 1 < run.usage.contender < 50_000
        assert run.peak_bytes is not None
        assert run.peak_bytes > 10_000_000


async def test_a_contender_that_loses_and_repeats_is_found_out(place: Place) -> None:
    contender = replace(CONTENDERS["nothing"], argv=(sys.executable, "-c", LIAR))
    run = await drain(contender, place, commands=COMMANDS, seed=1)
    assert run.tally == Tally(lost=1, repeated=1, left=1)


async def test_rows_that_are_missing_are_found_out(place: Place) -> None:
    contender = replace(CONTENDERS["nothing"], writes=True)
    run = await drain(contender, place, commands=COMMANDS, seed=1)
    assert run.tally == Tally(rows_off=-COMMANDS)


async def test_one_that_ends_early_is_named_with_the_end_of_its_log(place: Place) -> None:
    contender = replace(CONTENDERS["nothing"], environment={"BENCH_EVENTS": "no-such-exchange"})
    with pytest.raises(ContenderFailed, match=r"nothing: ended with exit code 1.*(?s:.*)no-such"):
        await drain(contender, place, commands=COMMANDS, seed=1)


async def test_a_program_that_is_not_installed_is_named(place: Place) -> None:
    contender = replace(CONTENDERS["nothing"], argv=("/no/such/program",))
    with pytest.raises(ContenderFailed, match="/no/such/program is not there"):
        await drain(contender, place, commands=COMMANDS, seed=1)


async def test_nothing_of_a_run_is_left(place: Place) -> None:
    async with (
        fresh_arena(place) as arena,
        await aio_pika.connect(place.broker_url) as connection,
    ):
        await (await connection.channel()).declare_queue(arena.queue, durable=True)
    async with await aio_pika.connect(place.broker_url) as connection:
        for queue in (*arena.topology.queues, arena.queue):
            with pytest.raises(ChannelNotFoundEntity):
                await (await connection.channel()).declare_queue(queue, passive=True)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn(arena.database_url))
