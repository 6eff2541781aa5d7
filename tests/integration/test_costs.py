"""What a command costs, counted in what does not depend on the machine.

Statements and round trips for each group, frames and writes to the broker, tasks. A change that
makes any of these grow with the number of commands fails here, not in a benchmark months later.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg.transaction
import pamqp.frame
import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.harness import Harness, Nowhere
from tests.support.processors import processor_on
from worker.codec.codec import Codec
from worker.core.messages import Delivery, Done, Job
from worker.core.registry import load_registry

GROUPS = (2, 10, 100)


@pytest.fixture
async def desk(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Desk:
    async with engine.connect():
        pass  # SQLAlchemy asks the server some questions at its first connection
    return Desk(engine, monkeypatch)


@dataclass
class Desk:
    """Carries out groups, and counts what is asked of the database."""

    engine: AsyncEngine
    patch: pytest.MonkeyPatch
    asked: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        registry = load_registry("worker.entities")
        self.codec = Codec(registry)
        self.processor = processor_on(self.engine, registry, self.codec)
        engine = self.engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._statement)
        self._count_calls("start")
        self._count_calls("commit")

    def _count_calls(self, name: str) -> None:
        """SQLAlchemy also speaks of transactions that the driver never begins."""
        call = getattr(asyncpg.transaction.Transaction, name)

        async def counted(transaction: Any) -> None:
            self.asked["begin" if name == "start" else name] += 1
            await call(transaction)

        self.patch.setattr(asyncpg.transaction.Transaction, name, counted)

    def _statement(self, *arguments: Any) -> None:
        executemany = arguments[-1]
        assert not executemany, "one round trip, not one for each row"
        self.asked[arguments[2].split()[0]] += 1

    async def carry_out(self, *commands: dict[str, Any]) -> Counter[str]:
        """What a group asked of the database; each command must have been done."""
        self.asked.clear()
        bodies = [json.dumps(command).encode() for command in commands]
        jobs = [Job(self.codec.decode(Delivery(body, 0, Nowhere()))) for body in bodies]
        outcomes = await self.processor.process(jobs)
        assert all(isinstance(outcome, Done) for outcome in outcomes), outcomes
        return self.asked.copy()


def create(name: str) -> dict[str, Any]:
    return {
        "id": f"create-{name}",
        "type": "user.create",
        "data": {"username": name, "email": f"{name}@example.com"},
    }


async def test_a_command_without_an_id_does_not_ask_the_ledger(desk: Desk) -> None:
    without_id = {key: value for key, value in create("ann").items() if key != "id"}
    assert await desk.carry_out(without_id) == {"begin": 1, "SELECT": 1, "INSERT": 1, "commit": 1}


async def test_a_lone_create_asks_only_for_what_no_constraint_tells(desk: Desk) -> None:
    # One statement writes row and ledger, and is its own transaction.
    assert await desk.carry_out(create("ann")) == {"WITH": 1}
    order = {"user": {"username": "ann"}}
    lone_order = {"id": "o", "type": "order.create", "data": order}
    assert await desk.carry_out(lone_order) == {"SELECT": 1, "WITH": 1}


@pytest.mark.parametrize("size", GROUPS)
async def test_a_group_of_creates_asks_four_times_whatever_its_size(desk: Desk, size: int) -> None:
    asked = await desk.carry_out(*(create(f"u{number}") for number in range(size)))

    # The ledger: seen before? The names: taken? The rows. The ledger again.
    assert asked == {"begin": 1, "SELECT": 2, "INSERT": 2, "commit": 1}


@pytest.mark.parametrize("size", GROUPS)
async def test_a_group_of_orders_asks_four_times_whatever_its_size(desk: Desk, size: int) -> None:
    await desk.carry_out(*(create(f"u{number}") for number in range(size)))
    orders = [
        {
            "id": f"order-{number}",
            "type": "order.create",
            "data": {"user": {"username": f"u{number}"}},
        }
        for number in range(size)
    ]

    assert await desk.carry_out(*orders) == {"begin": 1, "SELECT": 2, "INSERT": 2, "commit": 1}


@pytest.mark.parametrize("size", [1, *GROUPS])
async def test_a_mix_of_updates_and_deletes_asks_six_times_whatever_its_size(
    desk: Desk, size: int
) -> None:
    await desk.carry_out(*(create(f"u{number}") for number in range(2 * size)))
    mix: list[dict[str, Any]] = []
    for number in range(size):
        target = {"username": f"u{2 * number}"}
        data = {"rating": number}
        mix.append({"id": f"u-{number}", "type": "user.update", "target": target, "data": data})
        target = {"username": f"u{2 * number + 1}"}
        mix.append({"id": f"d-{number}", "type": "user.delete", "target": target})

    # Ledger, rows, how many orders each of the deleted has; what is written; the ledger again.
    assert await desk.carry_out(*mix) == {
        "begin": 1,
        "SELECT": 3,
        "UPDATE": 1,
        "DELETE": 1,
        "INSERT": 1,
        "commit": 1,
    }


@pytest.mark.parametrize("size", GROUPS)
async def test_users_that_come_and_go_in_one_group_ask_as_often_whatever_its_size(
    desk: Desk, size: int
) -> None:
    names = [f"u{number}" for number in range(size)]
    deletes = [
        {"id": f"d-{name}", "type": "user.delete", "target": {"username": name}} for name in names
    ]

    assert await desk.carry_out(*map(create, names), *deletes) == {
        "begin": 1,
        "SELECT": 4,
        "INSERT": 2,
        "DELETE": 1,
        "commit": 1,
    }


@dataclass
class Written:
    """What this process wrote to the broker."""

    writes: int = 0
    frames: Counter[str] = field(default_factory=Counter)

    def note(self, data: bytes) -> None:
        self.writes += 1
        while data and not data.startswith(b"AMQP"):
            size, _, frame = pamqp.frame.unmarshal(data)
            self.frames[type(frame).__name__] += 1
            data = data[size:]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Written, list[str]]]:
    """Frames and writes of all AMQP connections, and the tasks that are made."""
    written, tasks = Written(), []
    write = asyncio.StreamWriter.write

    def noting_write(self: asyncio.StreamWriter, data: bytes) -> None:
        written.note(data)
        write(self, data)

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        tasks.append(getattr(coroutine, "__qualname__", type(coroutine).__name__))
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.StreamWriter, "write", noting_write)
        loop.set_task_factory(factory)
        try:
            yield written, tasks
        finally:
            loop.set_task_factory(None)


async def test_frames_writes_and_tasks_of_a_full_queue(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = 600  # fewer than would crowd the window
    async with harness.worker():  # declares the queue
        pass
    await harness.send_all(create(f"u{number}") for number in range(commands))
    with counted(monkeypatch) as (written, tasks):
        async with harness.worker():
            await harness.next_event(after=commands - 1, within=60)

    frames = written.frames
    assert frames[Basic.Publish.__name__] == commands
    assert frames[ContentHeader.__name__] == frames[ContentBody.__name__] == commands
    assert frames[Basic.Ack.__name__] <= commands / 10
    # Start and stop included: 3 frames a command is what AMQP asks for.
    assert frames.total() <= 3.2 * commands + 60, frames
    assert written.writes <= commands / 5 + 60
    # The test's own subscriber makes two for each event; about 320 are for start and stop.
    assert len(tasks) - 2 * commands <= commands / 10 + 400, Counter(tasks).most_common(5)


async def test_a_dead_letter_costs_only_itself_and_not_those_that_are_answered_with_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, letters = 600, 30
    async with harness.worker():
        pass
    await harness.send_all(
        {"id": f"p{number}", "type": "user.paint"}
        if number % (commands // letters) == 0
        else create(f"u{number}")
        for number in range(commands)
    )
    with counted(monkeypatch) as (written, tasks):
        async with harness.worker():
            await harness.next_event(after=commands - 1, within=60)

    assert written.frames[Basic.Publish.__name__] == commands + letters
    # A letter is published by itself, in two writes and with two tasks.
    assert written.writes <= commands / 5 + 3 * letters + 60
    assert len(tasks) - 2 * commands <= commands / 10 + 4 * letters + 400, Counter(
        tasks
    ).most_common(5)
