"""When a command was carried out, and in which order: as the events and the ledger tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.harness import Harness, Nowhere
from tests.support.processors import processor_on
from worker.cli.ledger.republish import _entries_since
from worker.codec.codec import Codec
from worker.core.messages import DeadLetter, Delivery, Done, Job, Refused, ResultEvent, new_id
from worker.core.registry import load_registry
from worker.database import ledger
from worker.database.engine import make_sessions
from worker.database.ledger import DEAD_LETTERED, DONE, Entry

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
Command = dict[str, Any]


class Desk:
    """Carries out groups of commands, each with an id of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        registry = load_registry("tests.support.probes")
        self.codec = Codec(registry)
        self.sessions = make_sessions(engine)
        self.processor = processor_on(engine, registry, self.codec)
        self.order: list[str] = []
        """The ids of all commands, in the order in which they were carried out."""

    async def carry_out(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """Their events."""
        # Descending, so that no order by id is that of the commands.
        ids = [f"{10**6 - len(self.order) - number}" for number in range(len(commands))]
        self.order += ids
        bodies = [
            json.dumps({"id": id_, **it}).encode() for id_, it in zip(ids, commands, strict=True)
        ]
        jobs = [Job(self.codec.decode(Delivery(body, 0, Nowhere()))) for body in bodies]
        events = []
        for outcome in await self.processor.process(jobs):
            assert isinstance(outcome, Done | Refused | DeadLetter)
            events.append(json.loads(outcome.answer.body))
        return events

    async def record(self, *ids: str, outcome: str = DONE, again: Sequence[str] = ()) -> None:
        """Write entries in a transaction of their own."""
        async with self.sessions.begin() as session:
            await ledger.record(session, [entry(id_, outcome) for id_ in ids], again=again)

    async def recorded(self) -> list[str]:
        """The ids in the order in which `worker ledger republish` sends their events."""
        return [entry.command_id async for entry in _entries_since(self.sessions, LONG_AGO)]


@pytest.fixture
def desk(engine: AsyncEngine) -> Desk:
    return Desk(engine)


def create(name: str) -> Command:
    data = {"username": name, "email": f"{name}@example.com"}
    return {"type": "user.create", "data": data}


def time_of(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])


def about(verb: str, name: str, **members: Any) -> Command:
    return {"type": f"user.{verb}", "target": {"username": name}, **members}


def mixed(number: int) -> list[Command]:
    """Of every kind: done for many rows at once, by a handler of one's own, and not at all."""
    name = f"u{number}"
    return [
        create(name),
        about("update", name, data={"rating": 1}),
        create(name),  # refused: the name is taken
        about("update", "nobody", data={"rating": 1}),  # refused
        create(f"{name}-b"),
        about("delete", name),
        {"type": "user.paint"},  # set aside
        about("bump", f"{name}-b"),
    ]


@pytest.mark.parametrize("groups", [1, 3, 12])
async def test_a_group_is_told_in_the_order_of_its_commands(desk: Desk, groups: int) -> None:
    commands = [command for number in range(groups) for command in mixed(number)]
    events = await desk.carry_out(commands)

    times = [time_of(event) for event in events]
    assert times == sorted(times)
    assert [event["commandid"] for event in events] == desk.order
    assert await desk.recorded() == desk.order


@given(
    st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=9), min_size=1, max_size=4),
    st.integers(0, 10**6),
)
@hypothesis_settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_so_are_groups_of_any_size_and_lone_commands(
    engine: AsyncEngine, groups: list[list[int]], number: int
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE users, orders, command_ledger"))
    desk = Desk(engine)
    times: list[datetime] = []
    for group in groups:
        events = await desk.carry_out([mixed(number)[kind] for kind in group])
        times += map(time_of, events)

    assert times == sorted(times)
    assert await desk.recorded() == desk.order


async def test_a_creates_event_does_not_tell_when_the_group_was_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.processing.unit_of_work import UnitOfWork

    flush, flushed = UnitOfWork.flush, []

    async def noting(work: UnitOfWork) -> None:
        flushed.append(datetime.now(UTC))
        await flush(work)

    monkeypatch.setattr(UnitOfWork, "flush", noting)
    first, second = await desk.carry_out([create("ann"), create("bob")])

    assert time_of(first) <= time_of(second) < flushed[0]
    assert datetime.fromisoformat(first["data"]["created_on"]) <= time_of(first)


async def test_what_waited_for_a_row_comes_after_who_held_it(desk: Desk) -> None:
    """Its transaction began first, so by that time it would come first."""
    async with desk.sessions.begin() as waiting:
        await waiting.execute(text("SELECT 1"))
        await asyncio.create_task(desk.record("held"))
        await ledger.record(waiting, [entry("waited")])

    assert await desk.recorded() == ["held", "waited"]


async def test_a_dead_letter_that_was_tried_again_takes_a_new_place(desk: Desk) -> None:
    await desk.record("again", outcome=DEAD_LETTERED)
    await desk.record("other")
    await desk.record("third", "again", again=["again"])

    assert await desk.recorded() == ["other", "third", "again"]


async def test_a_clock_that_is_set_back_changes_no_order(desk: Desk, harness: Harness) -> None:
    ids = [f"c{number}" for number in range(1_200)]  # more than two pages of them
    await desk.record(*ids)
    later = "UPDATE command_ledger SET recorded_on = now() + $1 * interval '10 ms' + $2"
    for number in range(0, 1_200, 100):
        back = timedelta(seconds=-7 if number > 500 else 0)
        await harness.pool.execute(
            f"{later} WHERE command_id = ANY($3)", number, back, ids[number : number + 100]
        )

    assert await desk.recorded() == ids


async def test_entries_from_before_positions_come_first_in_the_order_of_their_events(
    desk: Desk, harness: Harness
) -> None:
    await desk.record("c", "a", "b")
    await harness.pool.execute("UPDATE command_ledger SET position = 0, recorded_on = now()")
    await desk.record("new")

    assert await desk.recorded() == ["c", "a", "b", "new"]


async def test_workers_at_once_give_no_position_twice(desk: Desk, harness: Harness) -> None:
    async def record(worker: int) -> None:
        for turn in range(5):
            await desk.record(*(f"{worker}-{turn}-{number}" for number in range(20)))

    await asyncio.gather(*(record(worker) for worker in range(4)))

    (counted,) = await harness.rows(
        "SELECT count(*) AS entries, count(DISTINCT position) AS positions FROM command_ledger"
    )
    assert counted == {"entries": 400, "positions": 400}


def entry(id_: str, outcome: str = DONE) -> Entry:
    body = json.dumps({"time": datetime.now(UTC).isoformat()}).encode()
    return Entry(id_, bytes(32), outcome, ResultEvent(new_id(), "user.noted", body))
