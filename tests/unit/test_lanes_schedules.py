"""Lanes under random outcomes, arrivals and reconnects: order, no loss, nothing twice."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import NO_WAIT, FakeSource, done, make_job, settle, tag_of
from worker.core.messages import Blocked, Job, Outcome, Retry, Settled, Unavailable
from worker.processing import lanes as lanes_module
from worker.processing.lanes import Lanes

KEYS = [None, "a", "b", "c", "d"]
# A seed, not a `Random` of Hypothesis: timers make the sequence of questions vary.
seeds = st.integers(0, 2**32)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "RECONNECT", NO_WAIT)


class World:
    """Decides by chance, within what the processor promises, and checks as it goes."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.published: list[Job] = []
        self.attempts: dict[int, int] = defaultdict(int)
        self.running: set[str] = set()

    async def pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    async def process(self, jobs: Sequence[Job]) -> list[Outcome]:
        keys = {job.key for job in jobs if job.key is not None}
        assert not keys & self.running, "two transactions with one key at once"
        self.running |= keys
        await self.pause()
        self.running -= keys
        outcomes: list[Outcome] = []
        waiting: set[str] = set()
        for job in jobs:
            if outcomes and isinstance(outcomes[-1], Unavailable):
                outcomes.append(outcomes[-1])
            elif job.key in waiting:
                outcomes.append(Blocked())
            else:
                outcomes.append(self.one(job))
                if isinstance(outcomes[-1], Retry) and job.key is not None:
                    waiting.add(job.key)
        return outcomes

    def one(self, job: Job) -> Outcome:
        self.attempts[tag_of(job)] += 1
        # Each may be unlucky a few times, so that every schedule comes to its end.
        if self.attempts[tag_of(job)] < 4:
            chance = self.random.random()
            if chance < 0.25:
                job.failures += 1
                return Retry("unlucky", self.random.choice([0, 0, 0.001]))
            if chance < 0.35:
                return Unavailable("gone")
        return done(job)

    async def publish(self, settled: Sequence[tuple[Job, Settled]]) -> None:
        await self.pause()
        self.published += [job for job, _ in settled]
        settle(settled)

    async def database_is_well(self, reason: str) -> None:
        await self.pause()


class CheckedSource(FakeSource):
    """Notes what is settled, which must have been published before."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def settle(self, tag: int) -> None:
        assert tag in {tag_of(job) for job in self.world.published}
        super().settle(tag)


@given(
    seeds,
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.lists(st.sampled_from(KEYS), max_size=8), max_size=6),
)
async def test_every_job_is_settled_once_and_each_key_in_order(
    seed: int, number_of_lanes: int, group_size: int, arrivals: list[list[str | None]]
) -> None:
    world = World(Random(seed))
    source = CheckedSource(world)
    lanes = Lanes(
        world.process,
        world.publish,
        world.database_is_well,
        lanes=number_of_lanes,
        group_size=group_size,
    )
    task = asyncio.create_task(lanes.run())
    jobs: list[Job] = []
    for arrival in arrivals:
        for key in arrival:
            jobs.append(make_job(key, source=source))
            lanes.submit(jobs[-1].item)
        await world.pause()
    async with asyncio.timeout(10):
        while len(source.settled) < len(jobs):
            assert not task.done(), task
            await asyncio.sleep(0)
    lanes.stop()
    await asyncio.wait_for(task, 5)

    assert sorted(source.settled) == [tag_of(job) for job in jobs]
    assert sorted(tag_of(job) for job in world.published) == sorted(source.settled)
    for key in KEYS[1:]:
        mine = [tag_of(job) for job in world.published if job.key == key]
        assert mine == [tag_of(job) for job in jobs if job.key == key]


@given(
    seeds,
    st.integers(1, 3),
    st.lists(st.lists(st.sampled_from(KEYS), max_size=6), min_size=1, max_size=5),
)
async def test_a_stop_at_any_moment_settles_exactly_what_was_published(
    seed: int, number_of_lanes: int, arrivals: list[list[str | None]]
) -> None:
    world = World(Random(seed))
    source = CheckedSource(world)
    lanes = Lanes(
        world.process,
        world.publish,
        world.database_is_well,
        lanes=number_of_lanes,
        group_size=3,
    )
    task = asyncio.create_task(lanes.run())
    for arrival in arrivals:
        for key in arrival:
            lanes.submit(make_job(key, source=source).item)
        await world.pause()
    lanes.stop()
    await asyncio.wait_for(task, 5)

    assert sorted(source.settled) == sorted(tag_of(job) for job in world.published)
    assert len(set(source.settled)) == len(source.settled)


@given(
    seeds,
    st.lists(st.lists(st.sampled_from(KEYS), min_size=1, max_size=6), min_size=2, max_size=4),
)
async def test_what_is_delivered_again_after_a_reconnect_keeps_its_order(
    seed: int, arrivals: list[list[str | None]]
) -> None:
    world = World(Random(seed))
    lanes = Lanes(world.process, world.publish, world.database_is_well, lanes=2, group_size=4)
    task = asyncio.create_task(lanes.run())
    keys = [key for arrival in arrivals for key in arrival]
    jobs: list[Job] = []
    source = CheckedSource(world)
    for _ in arrivals:  # each connection delivers everything, from the first on, and breaks
        source.closed = True
        source = CheckedSource(world)
        jobs = [make_job(key, source=source) for key in keys]
        for job in jobs:
            lanes.submit(job.item)
        await world.pause()
    async with asyncio.timeout(10):
        while len(source.settled) < len(jobs):
            assert not task.done(), task
            await asyncio.sleep(0)
    lanes.stop()
    await asyncio.wait_for(task, 5)

    last = {tag_of(job) for job in jobs}
    for key in KEYS[1:]:
        mine = [tag_of(job) for job in world.published if job.key == key and tag_of(job) in last]
        assert mine == [tag_of(job) for job in jobs if job.key == key]
