"""The stand-in for the database does as PostgreSQL does, wherever the worker relies on it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy.exc import DBAPIError

from tests.support.interleavings.stores import (
    Kinds,
    Store,
    Undone,
    beside_one_who_holds,
    conforms,
    entry,
)
from worker.database.ledger import DEAD_LETTERED, DONE, Entry, LedgerRace
from worker.processing.fault_kinds import FaultKind, classify, is_doubtful
from worker.testing.proxy import COMMIT


@conforms
async def test_what_is_committed_stays_and_what_is_rolled_back_does_not(store: Store) -> None:
    async with store.begin() as session:
        assert await store.apply(session, "a") == 1
        await store.record(session, entry("x", body=b'{"a": 1}'))
    with suppress(Undone):
        async with store.begin() as session:
            assert await store.apply(session, "a") == 2
            await store.record(session, entry("y"))
            raise Undone
    async with store.begin() as session:
        found = await store.lookup(session, ["x", "y"])
    assert found.keys() == {"x"}
    assert found["x"].answer.body == b'{"a": 1}'
    assert await store.count("a") == 1


@conforms
async def test_what_is_not_committed_is_seen_by_its_own_transaction_alone(store: Store) -> None:
    async def look() -> dict[str, Entry]:
        async with store.begin() as other:
            return await store.lookup(other, ["x"])

    async with store.begin() as session:
        await store.record(session, entry("x"))
        assert (await store.lookup(session, ["x"])).keys() == {"x"}
        # In a task of its own: none may hold two connections.
        assert await asyncio.create_task(look()) == {}
    assert (await look()).keys() == {"x"}


@pytest.mark.parametrize("commits", [True, False])
def test_of_two_with_one_id_the_second_waits(
    shared_database: str, commits: bool, kind: Kinds
) -> None:
    store = kind(shared_database)

    async def test() -> None:
        async def then() -> None:
            async with store.begin() as session:
                await store.record(session, entry("x"))

        second = await beside_one_who_holds(store, "x", then, commits=commits)
        if commits:
            with pytest.raises(LedgerRace):
                await second
        else:
            await second

    store.run(test())


@conforms
async def test_only_what_had_no_effect_is_recorded_anew(store: Store) -> None:
    for id_, outcome in (("x", DEAD_LETTERED), ("y", DONE)):
        async with store.begin() as session:
            await store.record(session, entry(id_, outcome))
    for id_, again in (("x", False), ("y", False), ("y", True)):
        with pytest.raises(LedgerRace):
            async with store.begin() as session:
                await store.record(session, entry(id_), again=again)
    async with store.begin() as session:
        await store.record(session, entry("x"), again=True)
    async with store.begin() as session:
        assert (await store.lookup(session, ["x"]))["x"].outcome == DONE


@conforms
async def test_a_row_is_locked_until_the_end(store: Store) -> None:
    written = asyncio.Event()

    async def second() -> int:
        await written.wait()
        async with store.begin() as session:
            return await store.apply(session, "a")

    waiting = asyncio.ensure_future(second())
    async with store.begin() as session:
        await store.apply(session, "a")
        written.set()
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting == 2


@conforms
async def test_who_would_wait_in_a_circle_is_told_and_may_try_again(store: Store) -> None:
    both_wrote = asyncio.Barrier(2)

    async def crosswise(first: str, then: str) -> None:
        async with store.begin() as session:
            await store.apply(session, first)
            await both_wrote.wait()
            await store.apply(session, then)

    ends = await asyncio.gather(crosswise("a", "b"), crosswise("b", "a"), return_exceptions=True)
    (fault,) = [end for end in ends if end is not None]
    assert isinstance(fault, Exception)
    assert classify(fault) is FaultKind.CONTENTION
    assert not is_doubtful(fault)
    assert await store.count("a") == await store.count("b") == 1


@conforms
async def test_after_a_fault_nothing_more_is_done(store: Store) -> None:
    async def go_on() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            with pytest.raises(DBAPIError) as first:
                await store.fail(session)
            assert classify(first.value) is FaultKind.PERMANENT
            await store.apply(session, "a")

    with pytest.raises(DBAPIError) as caught:
        await go_on()
    assert not is_doubtful(caught.value)
    assert await store.count("a") == 0


@conforms
async def test_who_is_cancelled_leaves_nothing(store: Store) -> None:
    wrote = asyncio.Event()

    async def write() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            wrote.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(write())
    await wrote.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await store.count("a") == 0


@conforms
async def test_who_is_cancelled_while_rolling_back_lets_go_of_its_locks(store: Store) -> None:
    wrote = asyncio.Event()

    async def write() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            wrote.set()
            await asyncio.sleep(0.2)
            assert not waiting.done()
            rolling_back = asyncio.current_task()
            assert rolling_back is not None
            asyncio.get_running_loop().call_soon(rolling_back.cancel)
            raise Undone

    async def wait() -> int:
        await wrote.wait()
        return await store.count("a")

    waiting = asyncio.ensure_future(wait())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(write())
    assert await waiting == 0


@conforms
async def test_a_lost_connection_is_an_outage_and_nothing_is_done(store: Store) -> None:
    async def lose() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            await store.lose(session)
            await store.apply(session, "a")

    with pytest.raises(DBAPIError) as caught:
        await lose()
    assert classify(caught.value) is FaultKind.OUTAGE
    assert is_doubtful(caught.value)
    assert await store.count("a") == 0


@conforms
async def test_a_commit_whose_reply_is_lost_was_done(store: Store) -> None:
    async def change() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")

    store.lose_the_reply_to(COMMIT)
    with pytest.raises(DBAPIError) as caught:
        await change()
    assert classify(caught.value) is FaultKind.OUTAGE
    assert is_doubtful(caught.value)
    assert await store.count("a") == 1
