"""Handlers that fail, refuse, hang or die: what becomes of them and of their neighbours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import probes
from tests.support.harness import Harness, eventually
from worker.database.pool.pool import pool_of

ANN = {"username": "ann", "email": "ann@example.com"}
BOB = {"username": "bob", "email": "bob@example.com"}


@pytest.fixture(autouse=True)
def _fresh_probes() -> None:
    probes.ATTEMPTS.clear()
    probes.RELEASE.clear()


@pytest.fixture(params=[64, 1], ids=["grouped", "one-by-one"])
async def worker(request: pytest.FixtureRequest, harness: Harness) -> AsyncIterator[Harness]:
    async with harness.worker(entities="tests.support.probes", group_size=request.param):
        await harness.ask("user.create", data=ANN)
        yield harness


async def rating(harness: Harness, username: str) -> Any:
    (row,) = await harness.rows("SELECT rating FROM users WHERE username = $1", username)
    return row["rating"]


async def test_a_handler_that_fails_is_tried_again(worker: Harness) -> None:
    event = await worker.ask("user.fail", target={"username": "ann"}, data={"times": 4})

    assert event.routing_key == "user.failed_no_more"
    assert probes.ATTEMPTS[event.command_id or ""] == 5
    assert await rating(worker, "ann") == 1


async def test_a_handler_that_keeps_failing_ends_as_a_dead_letter(worker: Harness) -> None:
    event = await worker.ask("user.fail", target={"username": "ann"}, data={"times": 99})
    (letter,) = await worker.dead_letters(1)

    assert event.routing_key == "user.fail.failed"
    assert event.data["code"] == letter.headers["x-code"] == "failed"
    assert letter.headers["x-attempts"] == probes.ATTEMPTS[event.command_id or ""] == 5
    assert "this attempt fails" not in event.body.decode()
    assert await rating(worker, "ann") is None


async def test_a_retry_holds_back_its_own_key_and_no_other(harness: Harness) -> None:
    async with harness.worker(
        entities="tests.support.probes",
        lanes=1,
        retry_base_seconds=1,
        retry_max_seconds=1,
        max_attempts=4,
    ):
        await harness.ask("user.create", data=ANN)
        await harness.ask("user.create", data=BOB)
        failing = await harness.send("user.fail", target={"username": "ann"}, data={"times": 3})
        after = await harness.send("user.update", target={"username": "ann"}, data={"rating": 5})
        other = await harness.send("user.update", target={"username": "bob"}, data={"rating": 5})
        await harness.event(after)
        order = [event.command_id for event in harness.events]

    assert order.index(other) < order.index(failing) < order.index(after)


async def test_a_refusal_after_a_write_leaves_no_trace(worker: Harness) -> None:
    ids = [
        await worker.send("user.update", target={"username": "ann"}, data={"rating": 2}, key="k"),
        await worker.send("user.write_and_refuse", target={"username": "ann"}, key="k"),
        await worker.send("user.bump", target={"username": "ann"}, key="k"),
    ]
    done, refused, bumped = [await worker.event(id_) for id_ in ids]

    assert done.data["rating"] == 2
    assert refused.data["code"] == "conflict"
    assert bumped.data["rating"] == 3
    assert await rating(worker, "ann") == 3


async def test_handlers_of_ones_own_see_what_came_before_them(worker: Harness) -> None:
    ids = []
    for _ in range(5):
        ids.append(await worker.send("user.bump", target={"email": "ANN@example.com"}, key="k"))
        ids.append(
            await worker.send(
                "user.update", target={"username": "ann"}, data={"rating": 0}, key="k"
            )
        )
    ids.append(await worker.send("user.bump", target={"username": "ann"}, key="k"))
    events = [await worker.event(id_) for id_ in ids]

    assert [event.data["rating"] for event in events] == [1, 0] * 5 + [1]
    assert [event.data["version"] for event in events] == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


async def test_a_broken_connection_is_no_failure_of_the_command(worker: Harness) -> None:
    losing = await worker.send(
        "user.lose_connection", target={"username": "ann"}, data={"times": 6}, key="a"
    )
    others = [
        await worker.send("user.create", data={"username": f"u{n}", "email": f"u{n}@example.com"})
        for n in range(20)
    ]
    for other in others:
        assert (await worker.event(other)).routing_key == "user.created"
    assert (await worker.event(losing, within=60)).routing_key == "user.kept"


async def test_a_stop_finishes_what_is_in_hand_and_returns_the_rest(harness: Harness) -> None:
    async with harness.worker(entities="tests.support.probes", lanes=2, group_size=1) as service:
        await harness.ask("user.create", data=ANN)
        lingering = await harness.send("user.linger", target={"username": "ann"}, key="a")
        await eventually(lambda: probes.ATTEMPTS[lingering] == 1)
        behind = [
            await harness.send(
                "user.update", target={"username": "ann"}, data={"rating": n}, key="a"
            )
            for n in range(10)
        ]
        service.stop()
        probes.RELEASE.set()
    answered = [event.command_id for event in harness.events]

    assert lingering in answered
    assert not set(behind) & set(answered)
    assert await eventually(harness.waiting) == len(behind)

    async with harness.worker(entities="tests.support.probes"):
        events = [await harness.event(id_) for id_ in behind]
    assert [event.data["rating"] for event in events] == list(range(10))


async def test_a_stop_that_takes_too_long_gives_up_what_is_in_hand(harness: Harness) -> None:
    async with harness.worker(entities="tests.support.probes", shutdown_seconds=0.3) as service:
        await harness.ask("user.create", data=ANN)
        lingering = await harness.send("user.linger", target={"username": "ann"})
        await eventually(lambda: probes.ATTEMPTS[lingering] == 1)
        service.stop()
    assert lingering not in [event.command_id for event in harness.events]
    assert await eventually(harness.waiting) == 1

    probes.RELEASE.set()
    async with harness.worker(entities="tests.support.probes"):
        assert (await harness.event(lingering)).routing_key == "user.lingered"


async def test_a_transaction_that_fails_gives_its_connection_back(harness: Harness) -> None:
    async with harness.worker(entities="tests.support.probes") as service:
        await harness.ask("user.create", data=ANN)
        id_ = await harness.send("user.fail", target={"username": "ann"}, data={"times": 1})
        # With the first attempt's connection its lock would stay, for the second to wait for.
        assert (await harness.event(id_, within=8)).routing_key == "user.failed_no_more"
        await eventually(lambda: not pool_of(service._engine).held(), within=8)


async def test_no_connection_leaks_out_of_the_pool(worker: Harness) -> None:
    for n in range(30):
        await worker.send("user.write_and_refuse", target={"username": "ann"})
        await worker.send("user.fail", target={"username": "ann"}, data={"times": n % 3})
        await worker.send("user.create", data={"username": "ann", "email": f"x{n}@example.com"})
    await eventually(lambda: len(worker.events) == 91, within=60)

    assert (
        await worker.rows(
            "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database()"
            " AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        == []
    )
