"""A short soak, and what its verdict calls flat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from dev.benchmarks.arena import Place
from dev.soak.__main__ import SHORT
from dev.soak.run import soak
from dev.soak.traffic import LIVING, commands, some
from dev.soak.verdict import SERIES, judge

pytestmark = pytest.mark.long

COMMANDS = 20_000


@pytest.mark.servers
async def test_a_short_soak_is_answered_and_leaves_everything_flat(
    broker_url: str, server_url: str, template_database: str, tmp_path: Path
) -> None:
    place = Place(broker_url, server_url, template_database)
    found = await soak(place, replace(SHORT, commands=COMMANDS), tmp_path / "worker.log")

    assert (found.events, found.exit_code) == (COMMANDS, 0)
    assert len(found.samples) > 3
    # What ages needs more than these seconds to settle; what leaks shows when all is done.
    first, last = found.samples[0], found.samples[-1]
    assert last["tasks"] <= first["tasks"] + 8
    assert (
        last["open_files"] - last["connections"] <= first["open_files"] - first["connections"] + 4
    )
    assert last["threads"] <= first["threads"] + 4
    assert last["ledger_rows"] < COMMANDS
    assert last["rss_bytes"] < 150_000_000


def test_what_grows_is_told_from_what_only_swings() -> None:
    random = Random(1)
    steady = {name: 10 * bound.room for name, bound in SERIES.items()}
    samples = [
        {"seconds": float(second)}
        | {name: value * random.uniform(0.8, 1.2) for name, value in steady.items()}
        | {"tasks": 40.0 + 5 * second, "ledger_rows": 1_000 * min(second, 20.0)}
        for second in range(100)
    ]
    verdict = judge(samples)

    assert [name for name, flatness in verdict.items() if not flatness.flat] == ["tasks"]


def test_the_traffic_leaves_no_user_and_repeats_itself_by_seed() -> None:
    first = some(commands(seed=3), 3_000)

    assert first == some(commands(seed=3), 3_000)
    assert len(set(first)) < len(first)
    assert sum(b"user.paint" in body for body in first) >= 2
    creates, deletes = (
        sum(verb in body for body in set(first)) for verb in (b".create", b".delete")
    )
    assert 0 <= creates - deletes <= LIVING
