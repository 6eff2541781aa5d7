"""All odd handlers at once in a whole worker, amid good commands in all lanes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.support import odd_handlers
from tests.support.harness import Harness, eventually
from worker.database.pool.pool import pool_of

NEIGHBOURS = 3
QUICK = odd_handlers.ALL.keys() - odd_handlers.HANGS.keys()
"""All whose end does not take the limit of a handler's time."""


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    odd_handlers.LET_GO.clear()
    yield
    odd_handlers.LET_GO.set()


def ends(what: str) -> str:
    """The type of the event that ends such a command."""
    if what in odd_handlers.GOES_WELL | odd_handlers.TELLS_THE_TRUTH:
        return "user.odd"
    return "user.do.rejected" if what in odd_handlers.REFUSES else "user.do.failed"


def user(name: str) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@x.example"}


def odd(number: int, what: str) -> dict[str, Any]:
    return {"type": "user.do", "target": {"username": f"odd-{number}"}, "data": {"what": what}}


@pytest.mark.parametrize(
    ("lanes", "group_size"),
    [(1, 64), *(pytest.param(*each, marks=pytest.mark.long) for each in ((4, 64), (4, 1)))],
)
async def test_each_has_its_one_answer_and_neighbours_have_theirs_at_once(
    harness: Harness, lanes: int, group_size: int
) -> None:
    kinds = sorted(QUICK)
    odd_ones = [odd(number, what) for number, what in enumerate(kinds)]
    good = [
        {"type": "user.create", "data": user(f"good-{number}")}
        for number in range(NEIGHBOURS * len(kinds))
    ]
    commands = [*odd_ones, *good]
    Random(lanes + group_size).shuffle(commands)
    async with harness.worker(
        entities="tests.support.odd_handlers", lanes=lanes, group_size=group_size
    ) as service:
        names = ["taken", *(f"odd-{number}" for number in range(len(kinds)))]
        for id_ in await harness.send_all(
            {"type": "user.create", "data": user(name)} for name in names
        ):
            await harness.event(id_)
        ids = await harness.send_all(commands)
        sent = time.monotonic()
        of_good = [id_ for id_, each in zip(ids, commands, strict=True) if each in good]
        for id_ in of_good:
            assert (await harness.event(id_)).routing_key == "user.created"
            assert service.health.ready
        took = time.monotonic() - sent
        found = {id_: (await harness.event(id_, within=60)).routing_key for id_ in ids}
        assert service.health.ready
        await eventually(lambda: not pool_of(service._engine).held())
        stopping = time.monotonic()
    stopped_in = time.monotonic() - stopping

    assert took < 15
    assert stopped_in < 5
    for id_, command in zip(ids, commands, strict=True):
        if command in odd_ones:
            assert found[id_] == ends(command["data"]["what"]), command
    answered = [event.command_id for event in harness.events]
    assert sorted(id_ for id_ in answered if id_ in found) == sorted(found)
    recorded = await harness.rows("SELECT command_id, event_type FROM command_ledger")
    told = {row["command_id"]: row["event_type"] for row in recorded}
    assert {id_: told[id_] for id_ in ids} == found


@pytest.mark.parametrize("what", odd_handlers.HANGS)
async def test_a_stop_does_not_wait_for_what_never_returns(harness: Harness, what: str) -> None:
    async with harness.worker(
        entities="tests.support.odd_handlers", handler_timeout_seconds=600, shutdown_seconds=0.5
    ) as service:
        await harness.ask("user.create", data=user("odd-0"))
        id_ = await harness.send(**_members(odd(0, what)))
        await eventually(lambda: odd_handlers.ATTEMPTS[id_])
        service.stop()
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5
    assert await eventually(harness.waiting) == 1


async def test_a_validator_that_fails_costs_its_own_command(harness: Harness) -> None:
    async with harness.worker(entities="tests.support.odd_handlers") as service:
        await harness.ask("user.create", data=user("odd-0"))
        odd_ones = [
            await harness.send("user.check", target={"id": 1}, data={"text": name})
            for name in ("KeyError", "SystemExit", "Own")
        ]
        since = service.health.part("commands").since
        assert (await harness.ask("user.create", data=user("good"))).routing_key == "user.created"
        for id_ in odd_ones:
            assert (await harness.event(id_)).routing_key == "user.check.failed"
        letters = await harness.dead_letters(len(odd_ones))
        assert {letter.headers["x-code"] for letter in letters} == {"failed"}
        assert service.health.part("commands").since == since


async def test_a_lane_goes_on_when_its_handler_never_returns(harness: Harness) -> None:
    async with harness.worker(
        entities="tests.support.odd_handlers", lanes=1, handler_timeout_seconds=0.5
    ):
        await harness.ask("user.create", data=user("odd-0"))
        hanging = await harness.send(**_members(odd(0, "never returns")))
        await eventually(lambda: odd_handlers.ATTEMPTS[hanging])
        async with asyncio.timeout(5):
            assert (await harness.ask("user.create", data=user("good"))).json["data"]["id"]
        assert (await harness.event(hanging)).routing_key == "user.do.failed"


def _members(command: dict[str, Any]) -> dict[str, Any]:
    return {"type_": command["type"], "target": command["target"], "data": command["data"]}
