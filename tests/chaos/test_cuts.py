"""The chaos rig's places to kill a worker at are where their names say."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dev.chaos.launcher import CONTROL, CUTS, Control
from tests.support.harness import Harness, eventually


@asynccontextmanager
async def launched(
    environment: Mapping[str, str], folder: Path, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dev.chaos.launcher", "run", *arguments),
        env={**environment, CONTROL: str(folder)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("cut", "recorded", "answered"),
    [
        ("received", False, False),
        ("in-transaction", False, False),
        ("committed", True, False),
        ("published", True, True),
    ],
)
async def test_a_worker_dies_where_it_is_told_and_the_next_one_finishes(
    harness: Harness,
    environment: dict[str, str],
    tmp_path: Path,
    *,
    cut: str,
    recorded: bool,
    answered: bool,
) -> None:
    control = Control(tmp_path)
    control.arm(cut)
    async with harness.worker():  # makes the topology
        pass
    id_ = await harness.send("user.create", data={"username": "ann", "email": "ann@example.com"})
    async with launched(environment, tmp_path) as process:
        assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    assert control.was_hit(cut)
    rows = await harness.rows("SELECT 1 FROM command_ledger WHERE command_id = $1", id_)
    assert bool(rows) == recorded
    # Not acknowledged: the broker has it again.
    assert await eventually(harness.waiting) == 1
    assert bool(harness.events) == answered

    async with harness.worker():
        event = await harness.event(id_, number=2 if answered else 1)
        assert ("x-replayed" in event.headers) == recorded
        assert len({event.body for event in harness.events}) == 1


def test_every_cut_of_the_launcher_is_tried_above() -> None:
    marks = test_a_worker_dies_where_it_is_told_and_the_next_one_finishes.pytestmark  # type: ignore[attr-defined]
    (tried,) = [mark.args[1] for mark in marks if mark.name == "parametrize"]
    assert {cut for cut, _, _ in tried} == set(CUTS)


async def test_the_children_of_several_processes_can_be_killed_there_too(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    control = Control(tmp_path)
    async with harness.worker():
        pass
    async with launched(environment, tmp_path, "--processes=2") as parent:
        control.arm("committed")
        id_ = await harness.send("user.create", data={"username": "a", "email": "a@example.com"})
        await eventually(lambda: control.was_hit("committed"), within=30)
        await harness.event(id_, within=30)
        parent.terminate()
        assert await asyncio.wait_for(parent.wait(), 30) == 0


async def test_the_clock_of_a_worker_can_be_turned(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    control = Control(tmp_path)
    control.turn_clock(-200_000)
    async with harness.worker():
        before = await harness.ask("user.create", data={"username": "a", "email": "a@example.com"})
    async with launched(environment, tmp_path):
        id_ = await harness.send("user.create", data={"username": "b", "email": "b@example.com"})
        after = await harness.event(id_, within=30)  # the process is only just starting
        assert after.data["created_on"] < before.data["created_on"]
