"""Runs one point: two processes, a look at the server, one `Point` in the end.

lab ── orders ──▶ generator ── arrivals (link) ──▶ target process ── pool ──▶ PostgreSQL
 ▲                    │ how punctual                  │ ticks, report           ▲
 └────────────────────┴───────────────────────────────┴────── observer ─────────┘
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any, Protocol

from worker.core.tasks import cancel_all
from worker.lab.link import pair
from worker.lab.measure import PoolReport
from worker.lab.measured import Point
from worker.lab.point import PointOutcome, Timing, assemble, look_on
from worker.lab.processes import LabFailed, LabProcess, child
from worker.lab.recorder import WorkReport
from worker.lab.sandbox import Sandbox
from worker.lab.scenario import Scenario
from worker.lab.setting import Setting
from worker.lab.target import LabOrder

OVERDUE_SECONDS = 30
"""A process that tells nothing for so long after its window is given up."""


class PointView(Protocol):
    """Shows how a point comes along."""

    def begin(self, setting: Setting, seconds: float) -> None:
        """A point begins, and will take about so long."""
        ...

    def tick(self, tick: dict[str, Any]) -> None:
        """The pool at this moment (`target_process.py`)."""
        ...


@dataclass(frozen=True)
class Bench:
    """What all points of a run share."""

    sandbox: Sandbox
    view: PointView
    stop: asyncio.Event
    """Set by Ctrl-C: the point ends early, and what was measured until then is kept."""
    postmaster: int | None
    """The process of PostgreSQL, if it runs on this machine."""
    order: Callable[[Scenario], LabOrder]


async def measure(bench: Bench, scenario: Scenario, *, repeat: int, order: int) -> Point | None:
    """Measure one setting; `None` if stopped before there was anything to measure."""
    if bench.stop.is_set():
        return None
    # Repeats draw other arrivals and durations: what they have in common is the setting.
    scenario = scenario.model_copy(update={"seed": scenario.seed + 1_000 * repeat})
    started_at, setting = datetime.now(UTC), scenario.setting
    target_end, generator_end = pair()
    async with (
        child("worker.lab.target_process", target_end) as target,
        child("worker.lab.generator", generator_end) as generator,
    ):
        orders = bench.order(scenario)
        target.send(orders.model_dump_json())
        if await target.receive() is None:
            raise LabFailed("the process under test ended before it was ready")
        timing = Timing.of(scenario.load)
        bench.view.begin(setting, timing.seconds)
        target.send(json.dumps(timing.window))
        generator.send(json.dumps({**timing.window, **orders.for_the_generator}))
        pids = (target.pid, generator.pid, bench.postmaster)
        look = look_on(bench.sandbox, scenario.restart, timing, processes=pids)
        looking = asyncio.create_task(look)
        stopping = asyncio.create_task(_dismiss_early(bench.stop, generator))
        try:
            report = await _report(bench.view, target, timing)
            told = await generator.receive() or {}
            if report is None:
                return None
            found = PointOutcome(
                pool=PoolReport.model_validate(report["pool"]),
                work=WorkReport.model_validate(report["work"] or told["work"]),
                punctuality=told,
                outside=await looking,
            )
        finally:
            await cancel_all([looking, stopping])
    point = assemble(setting, found, timing, started_at=started_at)
    return point.model_copy(update={"repeat": repeat, "order": order})


async def _report(view: PointView, target: LabProcess, timing: Timing) -> dict[str, Any] | None:
    """What the process tells in the end, with ticks on the way; `None` if nothing was measured."""
    ahead = (timing.until_ns - monotonic_ns()) / 1e9
    try:
        async with asyncio.timeout(ahead + OVERDUE_SECONDS):
            while (message := await target.receive()) is not None:
                if "pool" in message:
                    timing.end()
                    return message
                view.tick(message["tick"])
            return None
    except TimeoutError as error:
        raise LabFailed(
            f"the process under test told nothing for {OVERDUE_SECONDS} s after its end"
        ) from error


async def _dismiss_early(stop: asyncio.Event, generator: LabProcess) -> None:
    await stop.wait()
    generator.dismiss()
