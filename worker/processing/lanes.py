"""Lanes: commands with one key in order, commands with different keys at the same time.

A lane is one task with its own queue. It takes what is waiting, up to the size of a group, and has
it run as one transaction: one command when idle, many under backlog, with no timer and no wait in
between. A second task publishes what the first has committed, so that the next transaction does not
wait for the broker's confirms. At most three groups are committed and wait to be published, beside
those that are being published and the one that is being carried out. A third task tries again, one
by one, what has failed: its key waits for it, and no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import count

from worker.core.backoff import RECONNECT
from worker.core.messages import (
    Blocked,
    DeadLetter,
    Done,
    Item,
    Job,
    Outcome,
    Refused,
    Retry,
    Settled,
    Source,
    Unavailable,
)
from worker.core.tasks import all_of
from worker.telemetry.instruments import Instrument, Reading

LANES = Instrument("worker.lanes.max", "gauge", "{lane}", "Lanes that there are: `WORKER_LANES`.")
DEPTH = Instrument(
    "worker.lanes.depth", "gauge", "{command}", "Commands that wait in all lanes together."
)
DEEPEST = Instrument(
    "worker.lanes.deepest",
    "gauge",
    "{command}",
    "Commands that wait in the fullest lane; near the depth of all, few keys have most commands.",
)
INSTRUMENTS: tuple[Instrument, ...] = (LANES, DEPTH, DEEPEST)

Process = Callable[[Sequence[Job]], Awaitable[list[Outcome]]]
"""Runs jobs; never raises."""

Publish = Callable[[Sequence[tuple[Job, Settled]]], Awaitable[None]]
"""Answers commands, each of which is settled once that is confirmed; returns when others may
follow."""

DatabaseIsWell = Callable[[str], Awaitable[None]]
"""Returns when the database answers; takes the reason for doubt."""

MAX_UNPUBLISHED_GROUPS = 3


class Lane:
    """Runs jobs in the order in which they came."""

    def __init__(
        self,
        process: Process,
        publish: Publish,
        database_is_well: DatabaseIsWell,
        group_size: int,
        retries_at_once: asyncio.Semaphore,
    ) -> None:
        self._process = process
        self._publish = publish
        self._database_is_well = database_is_well
        self._group_size = group_size
        self._waiting: deque[Job] = deque()
        self._parked: dict[str, deque[Job]] = {}
        """What waits for the retry of an earlier job with its key."""
        self._retries: asyncio.Queue[Job | None] = asyncio.Queue()
        self._retries_at_once = retries_at_once
        self._sources: set[Source] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._committed: asyncio.Queue[list[tuple[Job, Settled]] | None] = asyncio.Queue(
            MAX_UNPUBLISHED_GROUPS
        )

    def submit(self, job: Job) -> None:
        """Add a job at the end."""
        source = job.envelope.delivery.source
        if source not in self._sources:
            self._sources = {known for known in self._sources if not known.closed} | {source}
            self._forget_closed()
        self._waiting.append(job)
        self._wake.set()

    @property
    def depth(self) -> int:
        """How many wait, those behind a retry included."""
        return len(self._waiting) + sum(map(len, self._parked.values()))

    def stop(self) -> None:
        """Begin no further transaction; `run` returns when what is in hand has been answered."""
        self._stopping = True
        self._wake.set()
        self._retries.put_nowait(None)

    async def run(self) -> None:
        """Work until stopped; raises what ends one of its tasks before, were it cancelled."""
        await all_of(self._carry_out(), self._publish_groups())

    async def _carry_out(self) -> None:
        await all_of(self._run_groups(), self._run_retries())
        await self._committed.put(None)

    async def _run_groups(self) -> None:
        losses_in_a_row = 0
        while group := await self._next_group():
            _begin(group)
            outcomes = await self._process(group)
            settled = self._sort(group, outcomes)
            if settled:
                await self._committed.put(settled)
            lost = next((outcome for outcome in outcomes if isinstance(outcome, Unavailable)), None)
            losses_in_a_row = 0 if lost is None else losses_in_a_row + 1
            if lost is not None:
                await self._wait_for_the_database(lost, losses_in_a_row)

    async def _run_retries(self) -> None:
        """Try again what is due, beside the groups: it may take as long as it did before."""
        losses_in_a_row = 0
        while (job := await self._retries.get()) is not None:
            if _is_closed(job):  # the broker delivers it again
                self._release(job.key)
                continue
            async with self._retries_at_once:
                if self._stopping:
                    return
                outcome = await self._try_again(job)
            if not isinstance(outcome, Unavailable):
                losses_in_a_row = 0
                continue
            losses_in_a_row += 1
            await self._wait_for_the_database(outcome, losses_in_a_row)
            self._retries.put_nowait(job)

    async def _try_again(self, job: Job) -> Outcome:
        _begin([job])
        (outcome,) = await self._process([job])
        if isinstance(outcome, Settled):
            await self._committed.put([(job, outcome)])
            self._release(job.key)
        else:
            job.envelope.delivery.source.defer(job.envelope.delivery.tag)
            if isinstance(outcome, Retry):
                self._park(job, outcome.delay_seconds)
        return outcome

    async def _next_group(self) -> list[Job]:
        """What may run next; empty when stopped."""
        group: list[Job] = []
        while not self._stopping:
            while self._waiting and len(group) < self._group_size:
                job = self._waiting.popleft()
                if _is_closed(job):
                    continue  # the broker delivers it again
                if job.key in self._parked:
                    self._parked[job.key].append(job)
                    continue
                group.append(job)
            if group:
                return group
            self._wake.clear()
            await self._wake.wait()
        return []

    def _sort(self, group: Sequence[Job], outcomes: Sequence[Outcome]) -> list[tuple[Job, Settled]]:
        """Put every job where its outcome says; return those that are to be answered."""
        settled: list[tuple[Job, Settled]] = []
        undecided: list[Job] = []
        for job, outcome in zip(group, outcomes, strict=True):
            if not isinstance(outcome, Settled):
                job.envelope.delivery.source.defer(job.envelope.delivery.tag)
            match outcome:
                case Done() | Refused() | DeadLetter():
                    settled.append((job, outcome))
                case Retry():
                    self._park(job, outcome.delay_seconds)
                case Blocked():
                    assert job.key is not None
                    self._parked[job.key].append(job)
                case Unavailable():
                    undecided.append(job)
        self._waiting.extendleft(reversed(undecided))
        return settled

    def _forget_closed(self) -> None:
        """Drop what the broker delivers again: a lane that cannot move must not collect it."""
        self._waiting = deque(job for job in self._waiting if not _is_closed(job))
        for key, jobs in self._parked.items():
            # An empty one stays: its retry will look for the key.
            self._parked[key] = deque(job for job in jobs if not _is_closed(job))

    def _park(self, job: Job, delay_seconds: float) -> None:
        if job.key is not None:
            self._parked.setdefault(job.key, deque())
        asyncio.get_running_loop().call_later(delay_seconds, self._retries.put_nowait, job)

    def _release(self, key: str | None) -> None:
        if key is not None:
            self._waiting.extendleft(reversed(self._parked.pop(key)))
            self._wake.set()

    async def _wait_for_the_database(self, lost: Unavailable, losses_in_a_row: int) -> None:
        await self._unless_stopped(self._database_is_well(lost.reason))
        # The database may answer and still not serve: never ask it in a busy loop.
        await self._unless_stopped(asyncio.sleep(RECONNECT.delay(losses_in_a_row)))

    async def _unless_stopped(self, work: Awaitable[None]) -> None:
        """Wait for the work, but not once the lane is to stop."""
        waited = asyncio.ensure_future(work)
        try:
            while not self._stopping and not waited.done():
                self._wake.clear()
                wake = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait({waited, wake}, return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
            self._wake.set()
        finally:
            waited.cancel()

    async def _publish_groups(self) -> None:
        while (group := await self._committed.get()) is not None:
            settled = list(group)
            last = False
            # What has come meanwhile goes out in the same breath.
            while not self._committed.empty():
                more = self._committed.get_nowait()
                if more is None:
                    last = True
                    break
                settled += more
            await self._publish(settled)
            if last:
                return


def _begin(group: Sequence[Job]) -> None:
    for job in group:
        delivery = job.envelope.delivery
        delivery.source.begin(delivery.tag)


def _is_closed(job: Job) -> bool:
    return job.envelope.delivery.source.closed


class Lanes:
    """Hands each item to the lane of its key.

    Each lane uses one connection to the database, and each of `retries_at_once` another.
    """

    def __init__(
        self,
        process: Process,
        publish: Publish,
        database_is_well: DatabaseIsWell,
        *,
        lanes: int,
        group_size: int,
        retries_at_once: int = 1,
    ) -> None:
        slots = asyncio.Semaphore(retries_at_once)
        self._lanes = [
            Lane(process, publish, database_is_well, group_size, slots) for _ in range(lanes)
        ]
        self._turn = count()

    def submit(self, item: Item) -> None:
        """Add an item; with no key it goes to each lane in turn."""
        key = item.envelope.key
        number = next(self._turn) if key is None else hash(key)
        self._lanes[number % len(self._lanes)].submit(Job(item))

    async def run(self) -> None:
        """Work until stopped, and until what was in hand then has been answered."""
        await all_of(*(lane.run() for lane in self._lanes))

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        depths = [lane.depth for lane in self._lanes]
        yield LANES, [({}, len(depths))]
        yield DEPTH, [({}, sum(depths))]
        yield DEEPEST, [({}, max(depths))]

    def stop(self) -> None:
        """Begin no further transaction."""
        for lane in self._lanes:
            lane.stop()
