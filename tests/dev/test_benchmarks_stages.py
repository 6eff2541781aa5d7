"""The stages: every one is measured, and time within another is not counted twice."""

from __future__ import annotations

import time

from dev.benchmarks.arena import Arena
from dev.benchmarks.commands import CHANGE, CREATE
from dev.benchmarks.stages.report import COLUMNS, markdown, medians
from dev.benchmarks.stages.run import STAGES, Clock, measure


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_time_within_an_inner_stage_counts_for_that_alone() -> None:
    clock = Clock()
    with clock.stage("outer"):
        burn(0.02)
        with clock.stage("inner"):
            burn(0.05)
        burn(0.02)

    assert 0.04 <= clock.seconds["outer"] < 0.05
    assert 0.05 <= clock.seconds["inner"] < 0.06


async def test_every_stage_of_a_group_is_measured(broker_url: str, database: str) -> None:
    arena = Arena(broker_url, database, "bench-stages")
    created = await measure(arena, CREATE, commands=50, group=10, seed=1)

    assert tuple(created) == STAGES
    assert all(used > 0 for used in created.values())


async def test_updates_and_deletes_are_measured(broker_url: str, database: str) -> None:
    arena = Arena(broker_url, database, "bench-stages")
    changed = await measure(arena, CHANGE, commands=40, group=10, seed=1)

    assert changed["write rows, and the events that waited for ids"] > 0


def test_the_table_shows_medians_and_their_sum() -> None:
    rounds = [
        {"round": number, "what": what, "stages": dict.fromkeys(STAGES, float(number))}
        for number in (1, 2, 9)
        for what in COLUMNS
    ]
    document = {"rounds": rounds}

    assert medians(document)["create, 1"]["handlers"] == 2
    assert f"**{2 * len(STAGES)}**" in markdown(document)
