"""Runs one point: two processes, a look at the server, one `Point` in the end.

lab ── orders ──▶ generator ── arrivals (link) ──▶ subject ── pool ──▶ PostgreSQL
 ▲                    │ how punctual                  │ ticks, report      ▲
 └────────────────────┴───────────────────────────────┴── observer ────────┘
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any, Protocol

from worker.lab.link import pair
from worker.lab.measure import PoolReport
from worker.lab.point import Parts, Timing, assemble, look_on
from worker.lab.processes import Child, LabFailed, child
from worker.lab.recorder import WorkReport
from worker.lab.results import Point
from worker.lab.sandbox import Sandbox
from worker.lab.scenario import Scenario
from worker.lab.setting import Setting
from worker.lab.target import Order

OVERDUE_SECONDS = 30
"""A subject that tells nothing for so long after its window is given up."""


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
    order: Callable[[Scenario], Order]


async def measure(bench: Bench, scenario: Scenario, *, repeat: int, order: int) -> Point | None:
    """Measure one setting; `None` if stopped before there was anything to measure."""
    if bench.stop.is_set():
        return None
    # Repeats draw other arrivals and durations: what they have in common is the setting.
    scenario = scenario.model_copy(update={"seed": scenario.seed + 1_000 * repeat})
    started_at, load = datetime.now(UTC), scenario.load
    worker_end, generator_end = pair()
    async with (
        child("worker.lab.target_process", worker_end) as subject,
        child("worker.lab.generator", generator_end) as generator,
    ):
        work_order = bench.order(scenario)
        await _until_ready(subject, work_order)
        timing = Timing.of(load)
        bench.view.begin(setting_of(scenario), timing.seconds)
        subject.send(_json(timing.window))
        generator.send(
            _json(
                {
                    **timing.window,
                    **generator_orders(scenario, timing),
                    **work_order.for_the_generator,
                }
            )
        )
        async with _beside(
            look_on(
                bench.sandbox,
                bench.postmaster,
                scenario,
                timing,
                subject=subject.pid,
                generator=generator.pid,
            ),
            _dismiss_early(bench.stop, generator),
        ) as (looking, _):
            report = await _report(bench.view, subject, timing)
            punctuality = await generator.receive() or {}
            if report is None:
                return None
            return assemble(
                setting_of(scenario),
                Parts(
                    pool=PoolReport.model_validate(report["pool"]),
                    work=WorkReport.model_validate(report["work"] or punctuality["work"]),
                    punctuality=punctuality,
                    outside=await looking,
                ),
                timing,
                started_at=started_at,
                repeat=repeat,
                order=order,
            )


async def _until_ready(subject: Child, order: Order) -> None:
    subject.send(order.model_dump_json())
    if await subject.receive() is None:
        raise LabFailed("the process under test ended before it was ready")


async def _report(view: PointView, subject: Child, timing: Timing) -> dict[str, Any] | None:
    """What the subject tells in the end, with ticks on the way; `None` if nothing was measured."""
    ahead = (timing.until_ns - monotonic_ns()) / 1e9
    try:
        async with asyncio.timeout(ahead + OVERDUE_SECONDS):
            while (message := await subject.receive()) is not None:
                if "pool" in message:
                    timing.end()
                    return message
                view.tick(message["tick"])
            return None
    except TimeoutError as error:
        raise LabFailed(
            f"the process under test told nothing for {OVERDUE_SECONDS} s after its end"
        ) from error


async def _dismiss_early(stop: asyncio.Event, generator: Child) -> None:
    await stop.wait()
    generator.dismiss()


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[tuple[asyncio.Task[Any], ...]]:
    """Tasks that run beside the block, and end with it."""
    tasks = tuple(asyncio.create_task(each) for each in work)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def setting_of(scenario: Scenario) -> Setting:
    """What was turned, as the results have it."""
    load, pool, work = scenario.load, scenario.pool, scenario.work
    return Setting(
        pool_size=pool.pool_size,
        max_overflow=pool.max_overflow,
        lanes=scenario.worker_lanes if scenario.path == "service" else work.lanes,
        group_size=work.group_size,
        load=load.kind,
        rate_per_second=load.mean_rate_per_second,
        clients=load.clients if load.kind == "closed" else None,
        path=scenario.path,
    )


def generator_orders(scenario: Scenario, timing: Timing) -> dict[str, Any]:
    """What the generator is told beside the window."""
    load = scenario.load
    if load.kind == "closed":
        return {
            "begin_ns": timing.begin_ns,
            "clients": load.clients,
            "think_seconds": load.think_seconds,
        }
    names = {
        "arrivals",
        "rate_per_second",
        "ramp_to_per_second",
        "burst_size",
        "burst_every_seconds",
        "warm_up_seconds",
        "measure_seconds",
    }
    schedule = load.model_dump(include=names)
    return {"begin_ns": timing.begin_ns, "schedule": {**schedule, "seed": scenario.seed}}


def _json(value: Any) -> str:
    return json.dumps(value)
