"""The pool's measures stay cheap. The bounds are wide: a busy machine is no fault of the code."""

from __future__ import annotations

from tests.benchmarks.pool_cost import measure


async def test_the_measures_cost_microseconds() -> None:
    found = await measure()

    assert 0 < found["added_to_a_checkout"] < 25
    assert 0 < found["added_to_a_statement"] < 10
