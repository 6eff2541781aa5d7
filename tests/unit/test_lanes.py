"""Lanes, with transactions and confirms that the test decides on."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.fakes import NO_WAIT, FakeSource, done, make_job, settle, tag_of, turns, until
from worker.core.messages import Blocked, Item, Job, Outcome, Retry, Settled, Unavailable
from worker.core.tasks import Ended
from worker.processing import lanes as lanes_module
from worker.processing.lanes import MAX_UNPUBLISHED_GROUPS, Lane, Lanes

Decide = Callable[[Sequence[Job]], list[Outcome]]


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "RECONNECT", NO_WAIT)


def all_done(jobs: Sequence[Job]) -> list[Outcome]:
    return [done(job) for job in jobs]


class Bench:
    """Stands in for processor, publisher and database, and notes what they are asked."""

    def __init__(self, decide: Decide = all_done) -> None:
        self.decide = decide
        self.groups: list[list[Job]] = []
        self.handed_over = 0
        self.published: list[list[int]] = []
        self.asked_about: list[str] = []
        self.may_process = asyncio.Event()
        self.may_publish = asyncio.Event()
        self.database = asyncio.Event()
        for gate in (self.may_process, self.may_publish, self.database):
            gate.set()

    async def process(self, jobs: Sequence[Job]) -> list[Outcome]:
        self.groups.append(list(jobs))
        await self.may_process.wait()
        return self.decide(jobs)

    async def publish(self, settled: Sequence[tuple[Job, Settled]]) -> None:
        self.handed_over += len(settled)
        await self.may_publish.wait()
        self.published.append([tag_of(job) for job, _ in settled])
        settle(settled)

    async def database_is_well(self, reason: str) -> None:
        self.asked_about.append(reason)
        await self.database.wait()

    def lane(self, group_size: int = 10) -> Lane:
        slots = asyncio.Semaphore(1)
        return Lane(self.process, self.publish, self.database_is_well, group_size, slots)

    @property
    def order(self) -> list[int]:
        """The tags of all that was published."""
        return [tag for group in self.published for tag in group]


@asynccontextmanager
async def running(lane: Lane | Lanes) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(lane.run())
    try:
        yield task
        lane.stop()
        await asyncio.wait_for(task, 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def tags(jobs: Sequence[Job]) -> list[int]:
    return [tag_of(job) for job in jobs]


async def test_what_waits_together_runs_together_in_order() -> None:
    bench, source = Bench(), FakeSource()
    lane = bench.lane()
    jobs = [make_job("a", source=source) for _ in range(5)]
    for job in jobs:
        lane.submit(job)
    async with running(lane):
        await until(lambda: len(source.settled) == 5)

    assert [tags(group) for group in bench.groups] == [tags(jobs)]
    assert bench.published == [tags(jobs)]
    assert source.settled == tags(jobs)


@pytest.mark.parametrize("step", ["process", "publish"])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("a bug")])
async def test_a_lane_whose_task_ends_ends_all_and_says_why(
    step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its commands would wait for ever, and nobody would know."""
    bench = Bench()

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(bench, step, fail)
    lanes = make_lanes(bench, 4)
    lanes.submit(item(make_job("a")))
    with pytest.raises((Ended, ValueError)):
        await asyncio.wait_for(lanes.run(), 5)


async def test_a_command_that_comes_alone_runs_at_once() -> None:
    bench, source = Bench(), FakeSource()
    lane = bench.lane()
    async with running(lane):
        for number in range(1, 4):
            lane.submit(make_job("a", source=source))
            await until(lambda number=number: len(source.settled) == number)  # type: ignore[misc]

    assert [len(group) for group in bench.groups] == [1, 1, 1]


async def test_a_group_never_exceeds_its_size() -> None:
    bench, source = Bench(), FakeSource()
    lane = bench.lane(group_size=4)
    jobs = [make_job(str(number % 3), source=source) for number in range(10)]
    for job in jobs:
        lane.submit(job)
    async with running(lane):
        await until(lambda: len(source.settled) == 10)

    assert [len(group) for group in bench.groups] == [4, 4, 2]
    assert bench.order == tags(jobs)


async def test_a_group_of_one_is_one_transaction_a_command() -> None:
    bench, source = Bench(), FakeSource()
    lane = bench.lane(group_size=1)
    for _ in range(5):
        lane.submit(make_job(None, source=source))
    async with running(lane):
        await until(lambda: len(source.settled) == 5)

    assert [len(group) for group in bench.groups] == [1] * 5


def keys_of_different_lanes(lanes: int) -> list[str]:
    found: dict[int, str] = {}
    for number in range(10_000):
        found.setdefault(hash(str(number)) % lanes, str(number))
    return list(found.values())


def make_lanes(bench: Bench, lanes: int, group_size: int = 10) -> Lanes:
    return Lanes(
        bench.process, bench.publish, bench.database_is_well, lanes=lanes, group_size=group_size
    )


def item(job: Job) -> Item:
    return job.item


async def test_different_keys_run_at_the_same_time_and_one_key_in_order() -> None:
    bench, source = Bench(), FakeSource()
    bench.may_process.clear()
    lanes = make_lanes(bench, 3)
    async with running(lanes):
        keys = keys_of_different_lanes(3)
        for key in keys:
            lanes.submit(item(make_job(key, source=source)))
        await until(lambda: len(bench.groups) == 3)
        for key in keys:
            lanes.submit(item(make_job(key, source=source)))
        await turns()
        assert len(bench.groups) == 3, "a second command must wait for the first with its key"
        bench.may_process.set()
        await until(lambda: len(source.settled) == 6)

    for key in keys:
        mine = [tag_of(job) for group in bench.groups for job in group if job.key == key]
        assert mine == sorted(mine)


async def test_commands_without_key_are_spread_over_all_lanes() -> None:
    bench, source = Bench(), FakeSource()
    bench.may_process.clear()
    lanes = make_lanes(bench, 4)
    async with running(lanes):
        for _ in range(4):
            lanes.submit(item(make_job(None, source=source)))
        await until(lambda: len(bench.groups) == 4)
        bench.may_process.set()
        await until(lambda: len(source.settled) == 4)


async def test_a_retry_holds_back_only_its_own_key() -> None:
    source = FakeSource()
    first, held, free, late_held, late_free = (
        make_job(key, source=source) for key in ("a", "a", "b", "a", "b")
    )

    def decide(jobs: Sequence[Job]) -> list[Outcome]:
        if first in jobs and first.failures == 0:
            first.failures = 1
            return [{"a": Blocked()}.get(job.key or "", done(job)) if job is not first
                    else Retry("no luck", 3_600) for job in jobs]  # fmt: skip
        return all_done(jobs)

    bench = Bench(decide)
    lane = bench.lane()
    for job in (first, held, free):
        lane.submit(job)
    async with running(lane):
        await until(lambda: source.settled == [tag_of(free)])
        lane.submit(late_held)
        lane.submit(late_free)
        await until(lambda: len(source.settled) == 2)
        await turns()
        assert source.settled == [tag_of(free), tag_of(late_free)]


async def test_what_was_held_runs_after_the_retry_in_its_order() -> None:
    source = FakeSource()
    first, *others = (make_job("a", source=source) for _ in range(5))
    other_key = make_job("b", source=source)
    gate = asyncio.Event()

    def decide(jobs: Sequence[Job]) -> list[Outcome]:
        if first in jobs and first.failures == 0:
            first.failures = 1
            gate.set()
            return [Retry("", 0.01) if job is first else Blocked() for job in jobs]
        return all_done(jobs)

    bench = Bench(decide)
    lane = bench.lane(group_size=3)
    for job in (first, *others[:2]):
        lane.submit(job)
    async with running(lane):
        await gate.wait()
        for job in (*others[2:], other_key):
            lane.submit(job)
        await until(lambda: len(source.settled) == 6)

    mine = [tag for tag in source.settled if tag != tag_of(other_key)]
    assert mine == [tag_of(first), *tags(others)]
    assert source.settled[0] == tag_of(other_key)


async def test_a_retry_without_key_holds_back_nobody() -> None:
    source = FakeSource()
    first, second = make_job(None, source=source), make_job(None, source=source)

    def decide(jobs: Sequence[Job]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for job in jobs:
            again = job is first and job.failures == 0
            outcomes.append(Retry("", 0) if again else done(job))
            job.failures += again
        return outcomes

    bench = Bench(decide)
    lane = bench.lane()
    lane.submit(first)
    lane.submit(second)
    async with running(lane):
        await until(lambda: len(source.settled) == 2)

    assert source.settled == tags([second, first])


async def test_a_retry_runs_alone_and_its_neighbours_do_not_wait_for_it() -> None:
    source = FakeSource()
    first, held, *free = (make_job(key, source=source) for key in ("a", "a", "b", "c", "d"))
    bench = Bench()
    hang = asyncio.Event()

    async def process(jobs: Sequence[Job]) -> list[Outcome]:
        bench.groups.append(list(jobs))
        if first in jobs and first.failures == 0:
            first.failures = 1
            return [Retry("", 0) if job is first else Blocked() for job in jobs]
        if first in jobs:
            await hang.wait()
        return all_done(jobs)

    bench.process = process  # type: ignore[method-assign]
    lane = bench.lane()
    lane.submit(first)
    lane.submit(held)
    async with running(lane):
        await until(lambda: bench.groups[-1:] == [[first]])
        for job in free:
            lane.submit(job)
        await until(lambda: len(source.settled) == len(free))
        hang.set()
        await until(lambda: len(source.settled) == 5)

    assert source.settled == tags([*free, first, held])


async def test_a_retry_that_meets_an_outage_is_tried_again_when_it_is_over() -> None:
    source, seen = (
        FakeSource(),
        iter([Retry("", 0), Unavailable("gone"), Unavailable("gone"), None]),
    )
    job, behind = make_job("a", source=source), make_job("a", source=source)

    def decide(jobs: Sequence[Job]) -> list[Outcome]:
        if job not in jobs:
            return all_done(jobs)
        outcome = next(seen)
        first = done(job) if outcome is None else outcome
        return [first, *(Blocked() for _ in jobs[1:])]

    bench = Bench(decide)
    lane = bench.lane()
    lane.submit(job)
    lane.submit(behind)
    async with running(lane):
        await until(lambda: len(source.settled) == 2)

    assert source.settled == tags([job, behind])
    assert bench.asked_about == ["gone", "gone"]


async def test_a_lost_database_is_waited_for_and_nothing_overtakes() -> None:
    source = FakeSource()
    away = True

    def decide(jobs: Sequence[Job]) -> list[Outcome]:
        if away:
            return [done(jobs[0]), *(Unavailable("gone") for _ in jobs[1:])]
        return all_done(jobs)

    bench = Bench(decide)
    bench.database.clear()
    lane = bench.lane()
    jobs = [make_job(key, source=source) for key in "abca"]
    for job in jobs:
        lane.submit(job)
    async with running(lane):
        await until(lambda: bench.asked_about)
        late = make_job("b", source=source)
        lane.submit(late)
        await turns()
        assert len(bench.groups) == 1, "nothing runs before the database is well"
        assert source.settled == tags(jobs[:1]), "what was committed is answered meanwhile"
        away = False
        bench.database.set()
        await until(lambda: len(source.settled) == 5)

    assert bench.asked_about == ["gone"]
    assert source.settled == tags([*jobs, late])


async def test_what_came_from_a_closed_subscription_is_dropped() -> None:
    bench, gone, here = Bench(), FakeSource(closed=True), FakeSource()
    lane = bench.lane()
    for source in (gone, here, gone):
        lane.submit(make_job("a", source=source))
    async with running(lane):
        await until(lambda: here.settled)

    assert [len(group) for group in bench.groups] == [1]


async def test_what_was_parked_when_its_subscription_closed_is_dropped_after_its_wait() -> None:
    gone, here = FakeSource(), FakeSource()

    def decide(jobs: Sequence[Job]) -> list[Outcome]:
        return [Retry("", 0) if job.envelope.delivery.source is gone else done(job) for job in jobs]

    bench = Bench(decide)
    lane = bench.lane()
    lane.submit(make_job("a", source=gone))
    async with running(lane):
        await until(lambda: len(bench.groups) >= 1)
        gone.closed = True
        again = make_job("a", source=here)
        lane.submit(again)
        await until(lambda: here.settled)

    assert gone.settled == []
    assert here.settled == [tag_of(again)]


async def test_closed_subscriptions_do_not_pile_up_while_a_lane_waits() -> None:
    bench = Bench(lambda jobs: [Unavailable("gone") for _ in jobs])
    bench.database.clear()
    lane = bench.lane()
    lane.submit(make_job("a"))
    forgotten = []
    async with running(lane):
        await until(lambda: bench.asked_about)
        for _ in range(5):
            source = FakeSource()
            forgotten.append(weakref.ref(source))
            lane.submit(make_job("a", source=source))
            lane.submit(make_job(None, source=source))
            source.closed = True
            del source
        current = FakeSource()
        lane.submit(make_job("a", source=current))
        gc.collect()
        held = sum(source() is not None for source in forgotten)

    assert held == 0, "deliveries that are not ours any more are kept in memory"


async def test_a_stop_finishes_what_is_in_hand_and_begins_nothing() -> None:
    bench, source = Bench(), FakeSource()
    bench.may_process.clear()
    bench.may_publish.clear()
    lane = bench.lane(group_size=2)
    jobs = [make_job("a", source=source) for _ in range(4)]
    for job in jobs:
        lane.submit(job)
    running_lane = asyncio.create_task(lane.run())
    await until(lambda: bench.groups)
    lane.stop()
    lane.submit(make_job("a", source=source))
    await turns()
    assert not running_lane.done()
    bench.may_process.set()
    await turns()
    assert not running_lane.done()
    assert source.settled == []
    bench.may_publish.set()
    await asyncio.wait_for(running_lane, 5)

    assert [tags(group) for group in bench.groups] == [tags(jobs[:2])]
    assert source.settled == tags(jobs[:2])


async def test_an_idle_lane_stops_at_once() -> None:
    lane = Bench().lane()
    task = asyncio.create_task(lane.run())
    await turns()
    lane.stop()
    await asyncio.wait_for(task, 5)


async def test_a_lane_that_waits_for_the_database_stops_at_once() -> None:
    bench = Bench(lambda jobs: [Unavailable("gone") for _ in jobs])
    bench.database.clear()
    lane = bench.lane()
    lane.submit(make_job("a"))
    task = asyncio.create_task(lane.run())
    await until(lambda: bench.asked_about)
    lane.stop()
    await asyncio.wait_for(task, 5)

    assert len(bench.groups) == 1


async def test_a_retry_that_is_due_after_the_stop_begins_nothing() -> None:
    bench = Bench(lambda jobs: [Retry("", 0) for _ in jobs])
    lane = bench.lane()
    lane.submit(make_job("a"))
    task = asyncio.create_task(lane.run())
    await until(lambda: bench.groups)
    lane.stop()
    await asyncio.wait_for(task, 5)
    started = len(bench.groups)
    await turns()

    assert len(bench.groups) == started


async def test_few_groups_wait_for_the_broker() -> None:
    bench, source = Bench(), FakeSource()
    bench.may_publish.clear()
    lane = bench.lane(group_size=1)
    for _ in range(20):
        lane.submit(make_job(None, source=source))
    async with running(lane):
        await turns(200)
        # Three wait for their turn, and the lane holds one that it could not put beside them.
        assert len(bench.groups) - bench.handed_over <= MAX_UNPUBLISHED_GROUPS + 1
        assert source.settled == []
        bench.may_publish.set()
        await until(lambda: len(source.settled) == 20)

    assert max(len(group) for group in bench.published) <= MAX_UNPUBLISHED_GROUPS + 1


async def test_what_waits_for_the_broker_goes_out_in_one_breath() -> None:
    bench, source = Bench(), FakeSource()
    bench.may_publish.clear()
    lane = bench.lane(group_size=1)
    jobs = [make_job(None, source=source) for _ in range(4)]
    for job in jobs:
        lane.submit(job)
    async with running(lane):
        await until(lambda: len(bench.groups) == 4)
        await turns()
        bench.may_publish.set()
        await until(lambda: len(source.settled) == 4)

    assert bench.order == tags(jobs)
    assert len(bench.published) < 4


async def test_nothing_is_settled_before_it_is_published() -> None:
    bench, source = Bench(), FakeSource()
    bench.may_publish.clear()
    lane = bench.lane()
    lane.submit(make_job("a", source=source))
    async with running(lane):
        await until(lambda: bench.groups)
        await turns()
        assert source.settled == []
        bench.may_publish.set()
        await until(lambda: source.settled)


async def test_a_lane_that_breaks_says_so() -> None:
    def broken(_: Sequence[Job]) -> list[Outcome]:
        raise ValueError("a bug")

    lanes = make_lanes(Bench(broken), 2)
    lanes.submit(item(make_job("a")))
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(lanes.run(), 5)
