"""The cost of the pool's measures is measured; how high it may be is no test's affair."""

from __future__ import annotations

import pytest

from dev.benchmarks import pool_cost

pytestmark = pytest.mark.long


async def test_every_cost_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_cost, "ROUNDS", 2)
    monkeypatch.setattr(pool_cost, "TIMES", 200)
    found = await pool_cost.measure()

    assert {"added_to_a_checkout", "added_to_a_statement"} <= found.keys()
    assert found["added_to_a_checkout"] > 0
