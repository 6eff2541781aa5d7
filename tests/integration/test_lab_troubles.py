"""Troubles planted into real runs are named: what an engineer would look for by hand."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.test_lab_service import Blind
from worker.lab.analysis import analyse
from worker.lab.findings import Diagnosis
from worker.lab.plan import repeats
from worker.lab.results import Result
from worker.lab.runner import Campaign, carry_out
from worker.lab.scenario import Scenario
from worker.settings.settings import Settings

pytestmark = pytest.mark.long


def scenario(*steps: dict[str, Any], rate: float, pool: int, **load: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "trouble",
            "sentence": "For the tests.",
            "load": {
                "rate_per_second": rate,
                "warm_up_seconds": 0.5,
                "measure_seconds": 3,
                **load,
            },
            "pool": {"pool_size": pool, "max_overflow": 0, "pool_timeout_seconds": 1},
            "step": steps,
        }
    )


DISTURBED = {"busy-event-loop", "overloaded-generator", "busy-machine"}
"""What a machine with too much else to do looks like."""
ATTEMPTS = 3


async def troubles_of(it: Scenario, settings: Settings, out: Path) -> dict[str, Diagnosis]:
    """Those of a run that nothing else on the machine has disturbed, if there is one.

    The lab says when it was disturbed, and then blames no pool; other tests may run beside this.
    """
    for _ in range(ATTEMPTS - 1):
        found = await troubles_of_one_run(it, settings, out)
        if not DISTURBED & found.keys():
            return found
    return await troubles_of_one_run(it, settings, out)


async def troubles_of_one_run(it: Scenario, settings: Settings, out: Path) -> dict[str, Diagnosis]:
    campaign = Campaign("run", it, [it], lambda: repeats(it, 1), out)
    result = await carry_out(campaign, settings, Blind(), asyncio.Event())
    return named(result)


def named(result: Result) -> dict[str, Diagnosis]:
    return {each.name: each for each in analyse(result).diagnoses}


def undisturbed(found: dict[str, Diagnosis]) -> dict[str, Diagnosis]:
    """What was found, unless others had the cores: then they are blamed, and rightly."""
    if "busy-machine" in found:
        pytest.skip(found["busy-machine"].words)
    return found


QUICK = {"kind": "query", "seconds": 0.005}


async def test_a_sound_pool_has_no_trouble(settings: Settings, tmp_path: Path) -> None:
    # So little to do that the pool is sound where a busy machine makes it five times as much.
    found = await troubles_of(scenario(QUICK, rate=20, pool=2), settings, tmp_path)
    # A machine with too much else to do is a trouble, too, and may be named.
    assert set(found) <= DISTURBED


async def test_a_leak(settings: Settings, tmp_path: Path) -> None:
    leaking = scenario(QUICK, {"kind": "leak", "share": 0.03}, rate=80, pool=4)
    found = await troubles_of(leaking, settings, tmp_path)
    assert "never came back" in found["leak"].words
    assert "pool-too-small" not in found


async def test_a_pool_that_is_too_small(settings: Settings, tmp_path: Path) -> None:
    crowded = scenario({"kind": "query", "seconds": 0.02}, rate=60, pool=1)
    found = await troubles_of(crowded, settings, tmp_path)
    assert found["pool-too-small"].pool_sizes == (1,)


async def test_a_pool_that_is_too_big(settings: Settings, tmp_path: Path) -> None:
    found = await troubles_of(scenario(QUICK, rate=50, pool=40), settings, tmp_path)
    assert "Of 40 connections never more than" in found["pool-too-big"].words


async def test_one_slow_query_in_fifty(settings: Settings, tmp_path: Path) -> None:
    slow = {
        "kind": "query",
        "distribution": "bimodal",
        "seconds": 0.002,
        "slow_seconds": 0.6,
        "slow_share": 0.02,
    }
    # So few others that the slow ones take most of the time even where a busy machine makes each of
    # them five times as long.
    found = await troubles_of(scenario(slow, rate=100, pool=4), settings, tmp_path)
    assert "10 times the median" in found["slow-queries"].words
    assert "pool-too-small" not in found


async def test_a_lock(settings: Settings, tmp_path: Path) -> None:
    locking = scenario(
        {"kind": "lock", "rows": 1}, {"kind": "query", "seconds": 0.02}, rate=60, pool=5
    )
    found = await troubles_of(locking, settings, tmp_path)
    assert "waited for a lock" in found["lock-contention"].words
    assert "pool-too-small" not in found


async def test_a_busy_event_loop(settings: Settings, tmp_path: Path) -> None:
    spinning = scenario(QUICK, {"kind": "spin", "seconds": 0.07}, rate=10, pool=4)
    found = undisturbed(await troubles_of_one_run(spinning, settings, tmp_path))
    assert "the event loop woke up" in found["busy-event-loop"].words.lower()


async def test_an_overloaded_generator(settings: Settings, tmp_path: Path) -> None:
    """It is held up as a machine without a free core would: 40 ms of every 60."""
    holding_up = asyncio.create_task(_hold_up_the_generator())
    try:
        found = await troubles_of_one_run(scenario(QUICK, rate=100, pool=8), settings, tmp_path)
    finally:
        holding_up.cancel()
    found = undisturbed(found)
    assert "held the generator up" in found["overloaded-generator"].words


async def _hold_up_the_generator() -> None:
    while True:
        pids = [child.pid for child in psutil.Process().children(True) if _is_generator(child)]
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        await asyncio.sleep(0.04)
        for pid in pids:
            _send(pid, signal.SIGCONT)
        await asyncio.sleep(0.02)


def _is_generator(process: psutil.Process) -> bool:
    try:
        return any("worker.lab.generator" in part for part in process.cmdline())
    except psutil.Error:
        return False


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)
