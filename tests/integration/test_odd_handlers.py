"""Whatever a handler does: its own command ends as promised, and its neighbours are untouched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.databases import fresh_database
from tests.support import odd_handlers
from tests.support.fakes import is_up
from tests.support.harness import Nowhere
from worker.codec.codec import Codec
from worker.core.backoff import Backoff
from worker.core.messages import DeadLetter, Delivery, Done, Job, Outcome, Refused, Retry, Settled
from worker.core.registry import Registry
from worker.database.engine import autocommit, make_engine, make_sessions
from worker.database.pool.pool import pool_of
from worker.entities.order import ORDER
from worker.entities.user import USER
from worker.processing.failures import MAX_LOSSES
from worker.processing.processor import Processor
from worker.settings.settings import DatabaseSettings

MAX_ATTEMPTS = 3
together_and_alone = pytest.mark.parametrize(
    "together",
    [pytest.param(True, id="grouped"), pytest.param(False, id="alone", marks=pytest.mark.long)],
)
REGISTRY = Registry(odd_handlers.ENTITIES)
CODEC = Codec(REGISTRY)
_numbers = count()


@pytest.fixture(scope="module")
async def engine(server_url: str, template_database: str) -> AsyncIterator[AsyncEngine]:
    """One database for all of these: each command has a user of its own."""
    async with fresh_database(
        server_url, f"{template_database}_odd", template=template_database
    ) as url:
        engine = make_engine(DatabaseSettings(url=url, pool_size=2, max_overflow=1))
        yield engine
        await engine.dispose()


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    odd_handlers.ATTEMPTS.clear()
    before = asyncio.all_tasks()
    yield
    odd_handlers.LET_GO.set()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=2)
    odd_handlers.LET_GO.clear()
    assert not left


def processor_on(engine: AsyncEngine, registry: Registry = REGISTRY) -> Processor:
    return Processor(
        make_sessions(engine),
        registry,
        CODEC,
        max_attempts=MAX_ATTEMPTS,
        backoff=Backoff(0.001, 0.001),
        max_deliveries=10,
        budget_seconds=60,
        handler_timeout_seconds=0.5,
        is_up=is_up,
        autocommit=autocommit(engine),
    )


def job(type_: str, **members: Any) -> Job:
    body = {"id": f"c-{next(_numbers)}", "type": type_, **members}
    return Job(CODEC.decode(Delivery(json.dumps(body).encode(), 0, Nowhere())))


def create(name: str) -> Job:
    return job("user.create", data={"username": name, "email": f"{name}@x.example"})


class Group:
    """An odd command amid good ones of other keys, and one behind it with its own key."""

    def __init__(self, engine: AsyncEngine, what: str) -> None:
        self.engine = engine
        self.processor = processor_on(engine)
        name = f"u{next(_numbers)}"
        self.name = name
        self.users = [create(f"{name}-{number}") for number in range(3)]
        self.before = [
            create(f"{name}-a"),
            job("user.update", target={"username": f"{name}-1"}, data={"rating": 1}),
        ]
        self.odd = job("user.do", target={"username": f"{name}-0"}, data={"what": what})
        self.behind = job("user.update", target={"username": f"{name}-0"}, data={"rating": 7})
        self.after = [
            create(f"{name}-b"),
            job("user.update", target={"username": f"{name}-2"}, data={"rating": 2}),
            job("user.delete", target={"username": f"{name}-1"}),
        ]

    async def run(self, *, together: bool) -> Outcome:
        """What becomes of the odd one, with its neighbours carried out in the first go."""
        if not await self._exists("taken"):
            await self.processor.process([create("taken")])
        await self.processor.process(self.users)
        jobs = [*self.before, self.odd, *self.after]
        outcome = await self._carry_out(jobs, together=together)
        for _ in range(30):
            if not isinstance(outcome, Retry):
                return outcome
            (outcome,) = await self.processor.process([self.odd])
        raise AssertionError("it never ends")

    async def _exists(self, name: str) -> bool:
        return bool(await self.rows("SELECT 1 FROM users WHERE username = :name", name=name))

    async def _carry_out(self, jobs: Sequence[Job], *, together: bool) -> Outcome:
        groups = [jobs] if together else [[each] for each in jobs]
        async with asyncio.timeout(10):
            found = [each for group in groups for each in await self.processor.process(group)]
        for each, outcome in zip(jobs, found, strict=True):
            assert isinstance(outcome, Done) or each is self.odd, (each, outcome)
        return found[jobs.index(self.odd)]

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(text(query), values)).all())

    async def check(self, outcome: Outcome, *, rating: float | None) -> None:
        """The ledger has this answer alone, the row what it says, and nothing is kept."""
        assert isinstance(outcome, Settled)
        (entry,) = await self.rows(
            "SELECT outcome, event_body FROM command_ledger WHERE command_id = :id",
            id=self.odd.envelope.id,
        )
        assert entry.event_body.encode() == outcome.answer.body
        rows = await self.rows(
            "SELECT username, rating FROM users WHERE username LIKE :like ORDER BY username",
            like=f"{self.name}-%",
        )
        names = {f"{self.name}-{which}": None for which in "ab"}
        expected = {f"{self.name}-0": rating, f"{self.name}-2": 2.0, **names}
        assert {row.username: row.rating for row in rows} == expected
        pool = pool_of(self.engine)
        assert pool.snapshot().in_use == 0
        (outcome,) = await self.processor.process([self.behind])
        assert isinstance(outcome, Done)


@together_and_alone
@pytest.mark.parametrize("what", odd_handlers.FAILS_AGAIN_AND_AGAIN)
async def test_what_fails_again_and_again_fails_alone(
    engine: AsyncEngine, what: str, together: bool
) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=together)

    assert isinstance(outcome, DeadLetter)
    assert (outcome.answer.type, outcome.attempts) == ("user.do.failed", MAX_ATTEMPTS)
    await group.check(outcome, rating=None)


@together_and_alone
@pytest.mark.parametrize("what", odd_handlers.FAILS_AT_ONCE)
async def test_what_breaks_a_rule_fails_at_once(
    engine: AsyncEngine, what: str, together: bool
) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=together)

    assert isinstance(outcome, DeadLetter)
    assert (outcome.answer.type, outcome.attempts) == ("user.do.failed", 1)
    assert odd_handlers.ATTEMPTS[group.odd.envelope.id or ""] <= 2
    await group.check(outcome, rating=None)


@together_and_alone
@pytest.mark.parametrize("what", odd_handlers.LOSES_ITS_CONNECTION)
async def test_what_breaks_its_connection_fails_in_the_end(
    engine: AsyncEngine, what: str, together: bool
) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=together)

    assert isinstance(outcome, DeadLetter)
    assert (outcome.answer.type, outcome.attempts) == ("user.do.failed", MAX_LOSSES)
    await group.check(outcome, rating=None)


@pytest.mark.parametrize("what", odd_handlers.HANGS)
async def test_what_never_returns_is_ended(engine: AsyncEngine, what: str) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=True)

    assert isinstance(outcome, DeadLetter)
    assert (outcome.answer.type, outcome.attempts) == ("user.do.failed", MAX_ATTEMPTS)
    assert odd_handlers.ATTEMPTS[group.odd.envelope.id or ""] == MAX_ATTEMPTS
    await group.check(outcome, rating=None)


@together_and_alone
@pytest.mark.parametrize("what", odd_handlers.REFUSES)
async def test_what_refuses_is_refused(engine: AsyncEngine, what: str, together: bool) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=together)

    assert isinstance(outcome, Refused)
    assert json.loads(outcome.answer.body)["data"]["code"] == "conflict"
    await group.check(outcome, rating=None)


@together_and_alone
@pytest.mark.parametrize("what", odd_handlers.GOES_WELL)
async def test_what_is_allowed_goes_well(engine: AsyncEngine, what: str, together: bool) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=together)

    assert isinstance(outcome, Done)
    await group.check(outcome, rating=13)


@pytest.mark.parametrize("what", odd_handlers.TELLS_THE_TRUTH)
async def test_the_event_shows_the_row_as_it_is(engine: AsyncEngine, what: str) -> None:
    group = Group(engine, what)
    outcome = await group.run(together=True)

    assert isinstance(outcome, Done)
    assert json.loads(outcome.answer.body)["data"]["rating"] == 99
    await group.check(outcome, rating=99)


HOOKS: dict[str, tuple[odd_handlers.Misbehave, int]] = {
    **{
        what: (odd_handlers.FAILS_AT_ONCE[what], 1)
        for what in ("calls commit", "swallows rollback", "runs 'COMMIT'", "commits the connection")
    },
    **{
        what: (odd_handlers.FAILS_AGAIN_AND_AGAIN[what], MAX_ATTEMPTS)
        for what in (
            "raises CancelledError",
            "raises StopAsyncIteration",
            "raises GeneratorExit",
            "raises SystemExit",
            "raises ConnectionRefusedError",
            "raises Unspeakable",
        )
    },
}
"""What else is called in the middle of a group, and how many attempts it is given."""


@pytest.mark.parametrize("what", HOOKS)
async def test_a_hook_that_misbehaves_fails_its_own_command(engine: AsyncEngine, what: str) -> None:
    hook, attempts = HOOKS[what]
    user = replace(USER, deletable=hook)
    processor = processor_on(engine, Registry([user, ORDER]))
    name = f"u{next(_numbers)}"
    await processor.process([create(f"{name}-{number}") for number in range(2)])
    jobs = [
        create(f"{name}-a"),
        job("user.delete", target={"username": f"{name}-0"}),
        create(f"{name}-b"),
    ]
    outcomes = await processor.process(jobs)
    while isinstance(outcomes[1], Retry):
        outcomes[1:2] = await processor.process(jobs[1:2])

    assert [type(outcome) for outcome in outcomes] == [Done, DeadLetter, Done]
    assert isinstance(outcomes[1], DeadLetter)
    assert outcomes[1].attempts == attempts
    assert pool_of(engine).snapshot().in_use == 0
