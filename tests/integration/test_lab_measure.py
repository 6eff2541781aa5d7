"""What the lab measures agrees with what queueing theory says, and with what was planted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.support.lab import NoView, bench, measured, one_step, short
from worker.lab.arrivals import Schedule
from worker.lab.checks import littles_law
from worker.lab.director import Bench, measure
from worker.lab.measured import Point
from worker.lab.scenario import Scenario
from worker.lab.scenario_files import load_scenario

pytestmark = pytest.mark.long

SERVICE_SECONDS = 0.04
ONE_SERVER = one_step(
    {"kind": "query", "seconds": SERVICE_SECONDS},
    "pool.pool_size=1",
    "pool.max_overflow=0",
    "load.rate_per_second=15",
    seconds=5,
)


def lindley(scenario: Scenario, hold: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The waits of one server for the very arrivals that were sent, each held equally long.

    W(n+1) = max(0, W(n) + hold - gap). Source: D. V. Lindley, "The theory of queues with a single
    server", Proc. Cambridge Phil. Soc. 48, 1952.
    """
    load = scenario.load
    times = list(
        Schedule(
            "poisson",
            load.rate_per_second,
            load.warm_up_seconds,
            load.measure_seconds,
            scenario.seed,
        ).times()
    )
    waits = [0.0]
    for earlier, later in pairwise(times):
        waits.append(max(0.0, waits[-1] + hold - (later - earlier)))
    return np.array(waits)[np.array(times) >= load.warm_up_seconds]


@pytest.fixture(scope="module")
async def lab(server_url: str) -> AsyncIterator[Bench]:
    async with bench(server_url) as it:
        yield it


@pytest.fixture(scope="module")
async def one_server(lab: Bench) -> Point:
    return await measured(lab, ONE_SERVER)


async def test_the_wait_for_one_connection_is_that_of_the_theory(one_server: Point) -> None:
    expected = lindley(ONE_SERVER, one_server.hold.seconds.mean)
    waits = one_server.wait
    assert one_server.load.failed == 0
    # Beside its sleep, a transaction takes some milliseconds for BEGIN and COMMIT.
    assert SERVICE_SECONDS <= one_server.hold.seconds.p50 < 1.5 * SERVICE_SECONDS
    assert waits.seconds.mean == pytest.approx(expected.mean(), rel=0.3, abs=0.005)
    assert waits.seconds.max == pytest.approx(expected.max(), rel=0.3, abs=0.02)
    assert waits.waited_share == pytest.approx((expected > 0).mean(), abs=0.1)


async def test_littles_law_holds(one_server: Point) -> None:
    assert littles_law(one_server).passed
    rate = one_server.hold.seconds.count / one_server.measured_seconds
    assert one_server.pool.busy_mean == pytest.approx(rate * one_server.hold.seconds.mean, rel=0.05)
    # And for the queue: L = lambda W.
    waiting = one_server.wait.seconds.count / one_server.measured_seconds
    assert one_server.wait.queue_mean == pytest.approx(
        waiting * one_server.wait.seconds.mean, rel=0.15, abs=0.05
    )


async def test_everything_else_adds_up(one_server: Point) -> None:
    point, load = one_server, one_server.load
    assert load.intended == load.started == load.completed == point.latency_seconds.count
    assert load.dropped == 0
    assert point.throughput_per_second == pytest.approx(load.completed / 5, rel=0.05)
    # The latency is the wait and the hold, and what the session costs.
    parts = point.wait.seconds.mean + point.hold.seconds.mean
    assert parts < point.latency_seconds.mean < parts + 0.02
    assert point.pool.busy_max == 1
    assert point.pool.connects == 0
    assert sum(sample.throughput_per_second for sample in point.samples) * (
        point.sample_seconds
    ) == pytest.approx(load.completed, rel=0.1)
    asleep = [each for each in point.server.activity if each.wait_event == "PgSleep"]
    assert asleep[0].sessions_mean == pytest.approx(point.pool.busy_mean, abs=0.25)
    assert point.server.max_connections
    assert point.worker is not None
    assert 0 < point.worker.cpu_cores < 1
    assert point.server.cpu_cores is not None
    assert point.host is not None
    assert 0 < point.host.cpu_cores <= 1.1 * point.host.cores
    lab = point.worker.cpu_cores + point.server.cpu_cores
    assert point.host.others_cpu_cores <= max(point.host.cpu_cores - lab, 0)


async def test_latency_counts_from_the_intended_time_when_the_pool_cannot_keep_up(
    lab: Bench,
) -> None:
    # 100 arrivals a second, 50 served: after 2 s the last of them is a second late, whatever the
    # first were.
    overloaded = one_step(
        {"kind": "query", "seconds": 0.02},
        "pool.pool_size=1",
        "pool.max_overflow=0",
        "load.rate_per_second=100",
        "load.arrivals=constant",
        seconds=2,
    )
    point = await measured(lab, overloaded)
    assert 30 < point.throughput_per_second < 50
    assert point.latency_seconds.max > 1
    later = [sample.latency_p99_seconds or 0 for sample in point.samples]
    assert later[-1] > later[0] + 0.5
    # What was not finished counts, with the age that it had.
    assert point.load.completed + point.load.failed == point.load.intended


async def test_work_beyond_the_bound_is_dropped_and_counted(lab: Bench) -> None:
    crowded = one_step(
        {"kind": "query", "seconds": 0.5},
        "pool.pool_size=1",
        "pool.max_overflow=0",
        "load.most_outstanding=5",
        "load.rate_per_second=50",
        seconds=1,
    )
    point = await measured(lab, crowded)
    assert point.load.dropped > 20
    assert point.load.started + point.load.dropped == point.load.intended
    assert point.wait.queue_max <= 5


async def test_a_closed_load_keeps_so_many_at_work(lab: Bench) -> None:
    closed = one_step(
        {"kind": "query", "seconds": 0.02},
        "pool.pool_size=2",
        "pool.max_overflow=0",
        "load.kind=closed",
        "load.clients=6",
        seconds=1.5,
    )
    point = await measured(lab, closed)
    assert point.load.arrivals == "closed"
    assert point.pool.busy_mean == pytest.approx(2, abs=0.2)
    assert point.wait.queue_mean == pytest.approx(4, abs=0.5)
    assert point.throughput_per_second == pytest.approx(2 / point.hold.seconds.mean, rel=0.15)


async def test_groups_share_a_commit(lab: Bench) -> None:
    alone = short("slow-commit", "load.rate_per_second=400", "work.lanes=2", seconds=1.5)
    together = alone.changed(work={"group_size": 64})
    one, many = await measured(lab, alone), await measured(lab, together)
    assert one.server.commits  # how many the server tells late, once a second
    # 2 lanes at 10 ms a commit can do 200 transactions a second at most.
    assert one.throughput_per_second < 200
    assert many.throughput_per_second > 1.5 * one.throughput_per_second
    assert many.hold.commit_seconds is not None
    assert many.hold.commit_seconds.p50 >= 0.01


async def test_a_restart_is_survived_and_told_by_sqlstate(lab: Bench) -> None:
    restart = short("restart", "restart.at_seconds=0.5", "restart.down_seconds=0.5", seconds=3)
    point = await measured(lab, restart)
    assert point.load.failed > 10
    assert point.errors["55000"] > 10  # the database let nobody in
    assert point.pool.connects > 0
    # All is well again by the end.
    assert point.samples[-1].errors == 0
    assert point.samples[-1].throughput_per_second > 50


class StopsAfter(NoView):
    """Sets the stop, as Ctrl-C would, after so many looks at the pool, four a second."""

    def __init__(self, ticks: int, stop: asyncio.Event) -> None:
        super().__init__()
        self._ticks, self._stop = ticks, stop

    def tick(self, tick: dict[str, Any]) -> None:
        self._ticks -= 1
        if self._ticks == 0:
            self._stop.set()


async def test_a_point_that_is_stopped_early_is_a_valid_part(server_url: str) -> None:
    endless = load_scenario("steady", ["load.warm_up_seconds=0.3", "load.measure_seconds=60"])
    async with bench(server_url) as it:
        # Two and a half seconds after the begin of the load, whenever that is.
        stopped = replace(it, view=StopsAfter(10, it.stop))
        point = await measure(stopped, endless, repeat=0, order=0)
    assert point is not None
    assert point.partial
    assert 0.3 < point.measured_seconds < 5
    assert point.throughput_per_second == pytest.approx(150, rel=0.4)
    assert point.load.intended == point.load.completed + point.load.failed


async def test_a_point_that_is_stopped_in_its_warm_up_is_none(server_url: str) -> None:
    warming = load_scenario("steady", ["load.warm_up_seconds=60"])
    async with bench(server_url) as it:
        stopped = replace(it, view=StopsAfter(2, it.stop))
        assert await measure(stopped, warming, repeat=0, order=0) is None
