"""The gate and the pool behind it: fair, bounded, and no place is ever lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only, greenlet_spawn

from tests.support.harness import eventually
from worker.database.pool import pool as pool_module
from worker.database.pool.admission import Gate
from worker.database.pool.pool import FairPool, NestedCheckout
from worker.processing.fault_kinds import FaultKind, classify


class Connection:
    """A connection to nothing, that takes a moment to open and to close."""

    def rollback(self) -> None:
        await_only(asyncio.sleep(0))

    def close(self) -> None:
        await_only(asyncio.sleep(0))


def make_pool(size: int = 1, overflow: int = 0, timeout: float = 5, **options: Any) -> FairPool:
    return FairPool(
        options.pop("creator", open_connection),
        pool_size=size,
        max_overflow=overflow,
        timeout=timeout,
        **options,
    )


def open_connection() -> Connection:
    await_only(asyncio.sleep(0))
    return Connection()


@asynccontextmanager
async def checkout(pool: FairPool) -> AsyncIterator[PoolProxiedConnection]:
    connection = await greenlet_spawn(pool.connect)
    try:
        yield connection
    finally:
        await asyncio.shield(asyncio.create_task(greenlet_spawn(connection.close)))


async def use(pool: FairPool, seconds: float = 0) -> None:
    async with checkout(pool):
        await asyncio.sleep(seconds)


async def hold_until(pool: FairPool, event: asyncio.Event) -> None:
    async with checkout(pool):
        await event.wait()


def is_at_rest(pool: FairPool) -> bool:
    now = pool.snapshot()
    return (now.in_use, now.waiting) == (0, 0) and not pool.held()


async def test_those_who_wait_are_served_in_the_order_of_asking() -> None:
    pool = make_pool(size=2, overflow=1)
    served: list[int] = []

    async def client(number: int) -> None:
        async with checkout(pool):
            served.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(client(number) for number in range(500)))

    assert served == list(range(500))


async def test_a_newcomer_does_not_pass_those_who_wait() -> None:
    """It asks in the very moment in which a connection has come back and nobody has it yet."""
    gate, served = Gate(1), []

    async def waiter() -> None:
        assert await gate.wait(5)
        served.append("waiter")

    assert gate.enter()
    waiting = asyncio.create_task(waiter())
    await asyncio.sleep(0)
    gate.leave()

    assert not gate.enter()
    await waiting
    assert served == ["waiter"]
    gate.leave()
    assert gate.enter()


async def test_service_is_fair_under_contention() -> None:
    """Jain's index over the rounds of 40 greedy clients at 3 connections (1 is perfectly fair)."""
    pool = make_pool(size=3)
    rounds = [0] * 40

    async def client(number: int) -> None:
        while sum(rounds) < 4_000:
            await use(pool)
            rounds[number] += 1

    await asyncio.gather(*(client(number) for number in range(40)))

    jain = sum(rounds) ** 2 / (len(rounds) * sum(count**2 for count in rounds))
    assert jain > 0.999
    assert max(rounds) - min(rounds) <= 2


async def test_a_wait_that_takes_too_long_ends_with_the_numbers() -> None:
    pool = make_pool(size=2, overflow=1, timeout=0.05)
    leave = asyncio.Event()
    holders = [asyncio.create_task(hold_until(pool, leave)) for _ in range(3)]
    await eventually(lambda: pool.snapshot().in_use == 3)

    with pytest.raises(PoolTimeout) as failure:
        await use(pool)
    leave.set()
    await asyncio.gather(*holders)

    sentence = str(failure.value)
    assert "3 of 3 (pool_size 2 + max_overflow 1) are in use" in sentence
    assert "in hold_until" in sentence or "in checkout" in sentence  # who holds it
    assert "WORKER_DATABASE__POOL_SIZE" in sentence
    assert classify(failure.value) is FaultKind.OUTAGE
    assert pool.meter.timeouts == 1
    assert pool.meter.wait.max >= 0.05
    assert is_at_rest(pool)


async def test_a_place_given_in_time_counts_however_late_the_loop_is() -> None:
    gate = Gate(1)
    assert gate.enter()
    waiting = asyncio.create_task(gate.wait(0.02))
    await asyncio.sleep(0)
    gate.leave()
    time.sleep(0.05)  # noqa: ASYNC251 - the loop is busy past the deadline

    assert await waiting


async def test_a_place_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    gate = Gate(1)
    assert gate.enter()
    first = asyncio.create_task(gate.wait(5))
    second = asyncio.create_task(gate.wait(5))
    await asyncio.sleep(0)

    gate.leave()
    first.cancel()

    assert await asyncio.wait_for(second, 1)
    assert first.cancelled()
    gate.leave()
    assert (gate.inside, gate.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_no_place_is_lost_in_a_storm(seed: int) -> None:
    """Cancelled at any moment, timed out, failed to connect, broken in use: 2,000 checkouts."""
    random = Random(seed)

    def open_perhaps() -> Connection:
        await_only(asyncio.sleep(random.choice([0, 0, 0.001])))
        if random.random() < 0.2:
            raise ConnectionRefusedError
        return Connection()

    pool = make_pool(size=3, overflow=2, timeout=0.004, creator=open_perhaps)
    ends = {"served": 0, "timed out": 0, "refused": 0, "cancelled": 0}

    async def client() -> None:
        try:
            async with checkout(pool) as connection:
                await asyncio.sleep(random.choice([0, 0, 0.001, 0.003]))
                if random.random() < 0.1:
                    await greenlet_spawn(connection.invalidate)
            ends["served"] += 1
        except PoolTimeout:
            ends["timed out"] += 1
        except ConnectionRefusedError:
            ends["refused"] += 1
        except asyncio.CancelledError:
            ends["cancelled"] += 1
            raise

    for _ in range(20):
        clients = [asyncio.create_task(client()) for _ in range(100)]
        while not all(task.done() for task in clients):
            random.choice(clients).cancel()
            await asyncio.sleep(random.choice([0, 0, 0.0005]))
        await asyncio.gather(*clients, return_exceptions=True)

    assert all(ends.values()), ends
    await eventually(lambda: is_at_rest(pool))
    for _ in range(50):  # and each of the five places still serves
        with suppress(ConnectionRefusedError):
            await use(pool)
    assert is_at_rest(pool)
    assert pool.snapshot().idle <= 3


async def test_a_connection_that_cannot_be_opened_gives_its_place_back() -> None:
    def refuse() -> Connection:
        raise ConnectionRefusedError

    pool = make_pool(size=1, creator=refuse)
    for _ in range(10):
        with pytest.raises(ConnectionRefusedError):
            await use(pool)

    assert is_at_rest(pool)


async def test_a_task_cannot_wait_for_itself() -> None:
    pool = make_pool(size=5)
    async with checkout(pool):
        with pytest.raises(NestedCheckout, match=r"The first was taken at .*test_pool.py:\d+"):
            await use(pool)
        # Nor may it after another pool came in between.
        async with checkout(make_pool()):
            with pytest.raises(NestedCheckout):
                await use(pool)
    await use(pool)

    assert is_at_rest(pool)
    assert classify(NestedCheckout("again")) is FaultKind.PERMANENT


async def test_other_tasks_and_other_pools_may_be_used_meanwhile() -> None:
    pool = make_pool(size=2)
    async with checkout(pool), checkout(make_pool()):
        await asyncio.create_task(use(pool))


async def test_a_connection_may_be_returned_by_another_task() -> None:
    """Sessions are closed in a task of their own, so that a cancellation does not reach it."""
    pool = make_pool()
    connection = await greenlet_spawn(pool.connect)
    await asyncio.create_task(greenlet_spawn(connection.close))

    await use(pool)
    assert is_at_rest(pool)


async def test_a_lost_connection_gives_its_place_back_whatever_thread_collects_it() -> None:
    pool = make_pool()
    lost: list[Any] = [await greenlet_spawn(pool.connect)]
    waiting = asyncio.create_task(use(pool))
    await eventually(lambda: pool.snapshot().waiting == 1)

    def collect() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SQLAlchemy says that it was not closed
            lost.clear()
            gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()

    await asyncio.wait_for(waiting, 5)
    thread.join()
    assert is_at_rest(pool)


async def test_the_bound_holds_while_an_old_pool_is_still_in_use() -> None:
    """`engine.dispose()` replaces the pool; what is out comes back to the old one and is closed."""
    pool = make_pool(size=1)
    leave = asyncio.Event()
    holding = asyncio.create_task(hold_until(pool, leave))
    await eventually(lambda: pool.snapshot().in_use == 1)
    await greenlet_spawn(pool.dispose)
    fresh = pool.recreate()
    waiting = asyncio.create_task(use(fresh))

    await eventually(lambda: fresh.snapshot().waiting == 1)
    leave.set()
    await asyncio.gather(holding, waiting)

    assert is_at_rest(fresh)
    assert pool.snapshot().idle == 0
    assert fresh.snapshot().idle == 1
    assert fresh.meter is pool.meter


@pytest.mark.parametrize(("size", "overflow"), [(0, 5), (5, -1)])
def test_a_pool_without_a_bound_is_refused(size: int, overflow: int) -> None:
    with pytest.raises(ValueError, match="this pool is bounded"):
        make_pool(size, overflow)


async def test_a_snapshot_reads_as_one_line() -> None:
    pool = make_pool(size=1, overflow=1)
    leave = asyncio.Event()
    tasks = [asyncio.create_task(hold_until(pool, leave)) for _ in range(3)]
    await eventually(lambda: pool.snapshot().waiting == 1)
    now = repr(pool.snapshot())
    leave.set()
    await asyncio.gather(*tasks)

    assert now.startswith("<pool of 1+1: 2 in use, 0 idle, 1 overflow, 1 waiting (first for 0.")
    assert repr(pool.snapshot()) == "<pool of 1+1: 0 in use, 1 idle, 0 overflow, 0 waiting>"


async def test_two_thousand_checkouts_keep_nothing() -> None:
    pool = make_pool(size=2)

    async def many(count: int) -> None:
        for _ in range(count):
            await use(pool)

    await many(100)
    tracemalloc.start()
    try:
        before = kept_by_the_pool()
        await many(2_000)
        after = kept_by_the_pool()
    finally:
        tracemalloc.stop()

    assert after - before < 20


def kept_by_the_pool() -> int:
    """Blocks of memory that the pool's own code has allocated and not let go of."""
    gc.collect()
    own = tracemalloc.Filter(True, f"{Path(pool_module.__file__).parent}/*")
    found = tracemalloc.take_snapshot().filter_traces([own])
    return sum(each.count for each in found.statistics("filename"))


async def test_waiters_that_give_up_are_gone() -> None:
    gate = Gate(1)
    assert gate.enter()
    results = await asyncio.gather(*(gate.wait(0.01) for _ in range(5_000)))

    assert not any(results)
    assert (gate.inside, gate.waiting, gate.longest_wait_seconds) == (1, 0, 0)
