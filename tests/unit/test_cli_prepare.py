"""Steps at a steady pace, and types that are nearly right."""

from __future__ import annotations

import asyncio
import time

import pytest

from worker.cli.prepare import complete, known_type, paced
from worker.cli.terminal import Misused
from worker.core.errors import Unreachable
from worker.core.registry import load_registry


async def test_steps_come_no_faster_than_the_rate() -> None:
    began = time.monotonic()
    steps = paced(100)
    for _ in range(11):
        await anext(steps)
    assert time.monotonic() - began >= 0.1


async def test_without_a_rate_nothing_is_waited_for() -> None:
    steps = paced(None)
    for _ in range(1_000):
        await anext(steps)


def test_a_type_that_is_nearly_right_is_suggested() -> None:
    registry = load_registry("worker.entities")
    assert known_type(registry, "user.create") == "user.create"
    with pytest.raises(Misused, match=r"Did you mean order\.delete"):
        known_type(registry, "orders.delete")
    with pytest.raises(Misused, match=r"Known types: user\.create"):
        known_type(registry, "")


def test_what_a_broken_link_cancels_is_an_outage() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(Unreachable):
        complete(cancelled())
