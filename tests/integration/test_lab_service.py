"""The lab's path `service`: commands in, the real worker, events out; and nothing left behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from tests.support.harness import eventually
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.core.errors import Unreachable
from worker.lab import sandbox
from worker.lab.measured import Point
from worker.lab.plan import repeats
from worker.lab.queues import open_queues
from worker.lab.results import Result
from worker.lab.runner import Campaign, carry_out
from worker.lab.scenario import BadScenario, Scenario
from worker.lab.scenario_files import load_scenario
from worker.settings.settings import Settings

pytestmark = pytest.mark.long

SHORT = {"warm_up_seconds": 0.5, "measure_seconds": 3}
ONE_READ = {"kind": "read"}


class Blind:
    """A view that shows nothing, and notes the ticks."""

    def __init__(self) -> None:
        self.ticks: list[dict[str, Any]] = []

    def begin(self, *_: object) -> None:
        pass

    def tick(self, tick: dict[str, Any]) -> None:
        self.ticks.append(tick)

    def point(self, *_: object) -> None:
        pass


def scenario(**parts: Any) -> Scenario:
    base = {
        "name": "probe",
        "sentence": "For the tests.",
        "path": "service",
        "step": [ONE_READ],
        "pool": {"pool_size": 4, "max_overflow": 0},
    }
    load = {**SHORT, "rate_per_second": 40, **parts.pop("load", {})}
    return Scenario.model_validate({**base, "load": load, **parts})


async def run(
    it: Scenario, settings: Settings, out: Path, *, stop: asyncio.Event | None = None
) -> tuple[Result, Blind]:
    view = Blind()
    campaign = Campaign("run", it, [it], lambda: repeats(it, 1), out)
    result = await carry_out(campaign, settings, view, stop or asyncio.Event())
    return result, view


async def point_of(it: Scenario, settings: Settings, out: Path) -> Point:
    result, _ = await run(it, settings, out)
    (point,) = result.points
    return point


def commits(point: Point) -> int:
    assert point.hold.commit_seconds is not None
    return point.hold.commit_seconds.count


@pytest.fixture(autouse=True)
async def mine(server_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """How the names of this test's runs begin; nobody of such a name is there in the end."""
    prefix = f"worker_lab_{uuid.uuid4().hex[:8]}_"
    monkeypatch.setattr(sandbox, "PREFIX", prefix)
    yield prefix

    async def clean() -> bool:
        return not await connected(server_url, prefix)

    await eventually(clean)


async def connected(server_url: str, prefix: str) -> set[str]:
    """Application names that begin so."""
    url = make_url(server_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        rows = await connection.fetch(
            "SELECT application_name FROM pg_stat_activity WHERE starts_with(application_name, $1)",
            prefix,
        )
    finally:
        await connection.close()
    return {row["application_name"] for row in rows}


async def queue_exists(broker_url: str, name: str) -> bool:
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        try:
            await channel.get_queue(name, ensure=True)
        except aio_pika.exceptions.ChannelClosed:
            return False
    return True


async def test_every_command_has_its_event_and_is_timed_by_its_intent(
    settings: Settings, tmp_path: Path
) -> None:
    it = scenario(
        step=[{"kind": "query", "seconds": 0.05}],
        pool={"pool_size": 8, "max_overflow": 0},
        load={"rate_per_second": 15},
    )
    result, view = await run(it, settings, tmp_path)
    (point,) = result.points

    load = point.load
    assert load.intended == load.started == load.completed
    assert load.intended > 20
    assert (load.failed, load.dropped, point.errors) == (0, 0, {})
    # The query alone takes 50 ms on the server; broker, ledger, commit and event come on top.
    assert point.latency_seconds.p50 > 0.05
    assert point.hold.query_seconds is not None
    assert point.hold.query_seconds.max >= 0.05
    assert commits(point) >= load.completed - 3  # the window has edges
    assert point.pool.busy_mean > 0.5
    assert point.wait.waited_share == 0  # its lanes never outnumber its connections
    assert point.setting.path == "service"
    assert point.setting.lanes == 7
    assert any(tick["throughput_per_second"] > 0 for tick in view.ticks)


async def test_groups_share_commits(settings: Settings, tmp_path: Path) -> None:
    """With one lane and a slow commit, what waits is committed together."""
    slow = [{"kind": "commit", "seconds": 0.05}]
    alone = await point_of(
        scenario(step=slow, work={"lanes": 1}, load={"rate_per_second": 10}), settings, tmp_path
    )
    many = scenario(
        step=slow, work={"lanes": 1, "group_size": 64}, load={"kind": "closed", "clients": 12}
    )
    grouped = await point_of(many, settings, tmp_path)

    assert commits(alone) >= alone.load.completed - 3
    assert commits(grouped) < grouped.load.completed / 1.5
    assert grouped.load.failed == 0


async def test_what_is_too_much_is_told_and_no_leak_is_seen_in_it(
    settings: Settings, tmp_path: Path
) -> None:
    """50 a second are asked for, and one lane can do 10: the rest stays behind, and is removed."""
    it = scenario(
        step=[{"kind": "query", "seconds": 0.1}],
        work={"lanes": 1},
        load={"rate_per_second": 50, "most_outstanding": 60},
    )
    point = await point_of(it, settings, tmp_path)

    assert point.load.dropped > 0
    assert point.errors.get("Unfinished", 0) > 0
    assert point.throughput_per_second < 11
    assert point.pool.still_out == 0


async def test_ctrl_c_leaves_a_result_and_no_queues(
    settings: Settings, broker_url: str, server_url: str, mine: str, tmp_path: Path
) -> None:
    stop = asyncio.Event()
    it = scenario(load={"measure_seconds": 60})
    running = asyncio.create_task(run(it, settings, tmp_path, stop=stop))

    async def namespace() -> str | None:
        names = {name.partition(" ")[0] for name in await connected(server_url, mine)}
        used = [name for name in names if await queue_exists(broker_url, f"{name}.commands")]
        return used[0] if used else None

    name = await eventually(namespace, within=30, every=0.2)
    await asyncio.sleep(2)  # so that there is something to keep
    stop.set()
    result, _ = await asyncio.wait_for(running, 30)

    assert result.partial
    assert not await queue_exists(broker_url, f"{name}.commands")
    assert not await queue_exists(broker_url, f"{name}.events")


async def test_queues_of_a_killed_run_are_removed_by_the_next(
    settings: Settings, broker_url: str, database: str, mine: str
) -> None:
    dead = f"{mine}dead"
    topology = Topology(dead, settings.broker)
    async with connect(settings.broker, "test") as connection:
        await topology.ensure(connection)
    url = make_url(database).set(drivername="postgresql")
    server = await asyncpg.connect(url.render_as_string(hide_password=False))
    await server.execute(f'CREATE SCHEMA "{dead}"')
    await server.close()

    # Also by one that needs no broker itself.
    engine = load_scenario("steady")
    async with sandbox.open_sandbox(settings.database, into_service=True) as found:
        assert found.leftovers == (dead,)
        async with open_queues(settings.broker, found, [engine]):
            for name in (topology.commands, topology.events, topology.dead_letters):
                assert not await queue_exists(broker_url, name)


async def test_without_a_broker_it_is_refused_before_any_load(
    settings: Settings, tmp_path: Path
) -> None:
    broker = settings.broker.model_copy(update={"url": SecretStr("amqp://127.0.0.1:1/")})
    lost = settings.model_copy(update={"broker": broker})
    with pytest.raises(Unreachable, match="RabbitMQ cannot be reached"):
        await run(scenario(), lost, tmp_path)
    assert not (tmp_path / "result.json").exists()


async def test_the_database_goes_away_and_nothing_is_lost(
    settings: Settings, tmp_path: Path
) -> None:
    it = scenario(
        load={"measure_seconds": 6, "rate_per_second": 30},
        restart={"at_seconds": 1, "down_seconds": 0.5},
        step=[{"kind": "write"}],
    )
    point = await point_of(it, settings, tmp_path)

    assert (point.load.completed, point.errors) == (point.load.intended, {})
    assert point.pool.invalidated > 0
    assert point.latency_seconds.max > 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["pool.pool_size=1", "pool.max_overflow=0"], "of at least 2"),
        (['step=[{kind="leak"}]'], "a leak needs path = 'engine'"),
    ],
)
def test_what_the_service_cannot_run_is_refused_by_name(changes: list[str], words: str) -> None:
    with pytest.raises(BadScenario, match=words):
        load_scenario("steady", ["path=service", *changes])
