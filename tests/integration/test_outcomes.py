"""Every outcome of the contract, grouped and one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness import Harness


@pytest.fixture(params=[64, 1], ids=["grouped", "one-by-one"])
async def worker(request: pytest.FixtureRequest, harness: Harness) -> AsyncIterator[Harness]:
    async with harness.worker(group_size=request.param):
        yield harness


async def test_a_created_user_is_a_row_and_an_event(worker: Harness) -> None:
    event = await worker.ask(
        "user.create", data={"username": "ann", "email": "Ann@Example.com", "rating": 4}
    )

    (row,) = await worker.rows("SELECT * FROM users")
    assert event.routing_key == "user.created"
    assert event.json["subject"] == f"user/{row['id']}"
    assert event.data["email"] == row["email"] == "Ann@Example.com"
    assert event.data["rating"] == row["rating"] == 4.0
    assert event.data["version"] == row["version"] == 1
    assert event.data["created_on"].endswith("Z")
