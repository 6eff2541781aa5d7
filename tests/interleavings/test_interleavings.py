"""G1 to G5 after every schedule."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from tests.interleavings.conftest import SCHEDULES, schedules
from tests.support.interleavings import schedule
from tests.support.interleavings.machine import FAULTS, Machine

BYTES = 480
"""More than most schedules use."""


@dataclass(frozen=True)
class Given:
    """The bytes of a schedule; those that say nothing are not shown."""

    choices: bytes

    def __repr__(self) -> str:
        return f"Given(bytes.fromhex({self.choices.rstrip(bytes(1)).hex()!r}))"


@contextmanager
def untraced() -> Iterator[None]:
    """Others measure what is covered; to trace these would take longer than they do."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


@pytest.mark.timeout(120 + SCHEDULES // 5)
def test_the_guarantees_hold_after_every_schedule() -> None:
    seen: Counter[str] = Counter()

    @schedules
    @given(st.binary(min_size=BYTES, max_size=BYTES).map(Given))
    def explore(given_: Given) -> None:
        machine = Machine(given_.choices)
        complaints = machine.run()
        seen["schedules"] += 1
        seen.update(machine.world.happened)
        note(f"{machine.plan}\n" + "\n".join(machine.world.story))
        assert complaints == []

    with untraced():
        explore()
    print(f"\n{seen['schedules']} schedules:", dict(sorted(seen.items())))
    assert seen["schedules"] >= SCHEDULES
    # And they were none of the harmless kind only.
    for what in (*FAULTS, "returned", "published again", "lock waited for"):
        assert seen[what] >= SCHEDULES // 200, what


@pytest.mark.parametrize("seed", range(3))
def test_a_schedule_can_be_repeated(seed: int) -> None:
    given_bytes = Random(seed).randbytes(BYTES)
    first, second = Machine(given_bytes), Machine(given_bytes)
    assert first.run() == second.run() == []
    assert first.world.story == second.world.story


def test_a_schedule_with_no_choices_is_an_ordinary_one() -> None:
    machine = Machine(b"")
    assert machine.run() == []
    ordinary = {"sent", "delivered", "published", "acknowledged"}
    assert machine.world.happened.keys() <= ordinary


def test_a_schedule_that_does_not_end_says_so_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "MAX_STEPS", 60)
    complaints = Machine(Random(0).randbytes(BYTES)).run()
    assert any("no end after 60 steps" in complaint for complaint in complaints)
    gc.collect()  # tasks that it left would be told of, each with a traceback, after its story
