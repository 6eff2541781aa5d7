"""Readiness follows its parts, and is served over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import aiohttp
import pytest

from worker.core.errors import Misconfigured
from worker.telemetry.health import Health
from worker.telemetry.readiness import Component


def test_a_part_is_not_ready_until_it_says_so() -> None:
    part = Component("database")

    assert not part.ready
    assert part.as_json()["reason"] == "not connected yet"


def test_a_part_tells_since_when_it_is_as_it_is() -> None:
    part = Component("database")
    part.up()
    up_since = part.since
    part.up()
    assert part.as_json() == {"ready": True, "since": up_since.isoformat()}
    part.down("gone")
    down_since = part.since
    assert down_since >= up_since
    part.down("still gone")

    assert not part.ready
    assert part.since == down_since
    assert part.as_json() == {
        "ready": False,
        "since": down_since.isoformat(),
        "reason": "still gone",
    }
    assert datetime.fromisoformat(part.as_json()["since"]).tzinfo is not None


def test_a_part_has_one_state_whoever_asks_for_it() -> None:
    health = Health("127.0.0.1", 0)

    assert health.part("database") is health.part("database")
    assert health.part("database") is not health.part("events")


def test_the_worker_is_ready_when_all_parts_are() -> None:
    health = Health("127.0.0.1", 0)
    one, other = health.part("one"), health.part("other")
    states = [health.ready]
    for change in (one.up, other.up, lambda: one.down("gone")):
        change()
        states.append(health.ready)

    assert states == [False, False, True, False]


async def get(health: Health, path: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{health.port}{path}") as response,
    ):
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_the_pages_tell_what_is_not_ready_and_why() -> None:
    async with Health("127.0.0.1", 0) as health:
        assert health.port != 0
        database = health.part("database")
        database.down('no "answer"\r\n\x1b[31m')
        assert await get(health, "/livez") == (200, {"alive": True})
        status, body = await get(health, "/readyz")
        assert status == 503
        assert body["ready"] is False
        assert body["parts"]["database"]["reason"] == 'no "answer"\r\n\x1b[31m'
        database.up()
        status, body = await get(health, "/readyz")
        assert (status, body["ready"]) == (200, True)
        assert body["parts"]["database"]["ready"] is True


async def test_other_pages_do_not_exist() -> None:
    async with Health("127.0.0.1", 0) as health, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{health.port}/") as response:
            assert response.status == 404
        async with session.post(f"http://127.0.0.1:{health.port}/readyz") as response:
            assert response.status == 405


async def test_a_port_in_use_is_told() -> None:
    async with Health("127.0.0.1", 0) as first:
        with pytest.raises(Misconfigured, match=f"WORKER_HEALTH__PORT={first.port}: cannot listen"):
            await Health("127.0.0.1", first.port).__aenter__()


async def test_a_host_that_is_not_ours_is_told() -> None:
    with pytest.raises(Misconfigured, match="cannot listen"):
        await Health("192.0.2.1", 0).__aenter__()


async def test_the_port_is_free_again_afterwards() -> None:
    async with Health("127.0.0.1", 0) as first:
        port = first.port
    async with Health("127.0.0.1", port) as second:
        assert second.port == port
