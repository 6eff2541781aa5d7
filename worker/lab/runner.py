"""Carries out a plan on real servers, and keeps what it finds, after each point and at the end."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol

import psutil
from sqlalchemy import make_url, text
from sqlalchemy.exc import ArgumentError

from worker import __version__
from worker.database.capacity import Room
from worker.lab.director import Bench, PointView, measure
from worker.lab.measured import Point
from worker.lab.observer import postmaster_pid
from worker.lab.plan import Plan
from worker.lab.queues import open_queues
from worker.lab.results import About, Machine, Objective, Result, save_result
from worker.lab.sandbox import Sandbox, open_sandbox
from worker.lab.scenario import BadScenario, Scenario
from worker.lab.target import LabOrder
from worker.settings.settings import Settings

BOUNCER = "PGBOUNCER_URL"
"""The variable with the address of a PgBouncer in transaction mode."""
OWN_CONNECTIONS = 5
"""What the lab itself needs beside the pool under test."""


class View(PointView, Protocol):
    """Shows how a campaign comes along."""

    def point(self, point: Point, seconds_left: float) -> None:
        """A point has been measured; about so long is left of the whole."""
        ...


@dataclass(frozen=True)
class Campaign:
    """What is to be measured, and where it is kept."""

    kind: Literal["run", "sweep", "capacity"]
    scenario: Scenario
    """The one that all others vary."""
    scenarios: Sequence[Scenario]
    """All that may come, to be checked before any load is sent."""
    plan: Callable[[], Plan]
    out: Path
    """The folder of `result.json`."""
    objective: Objective = field(default_factory=Objective)
    into_service_database: bool = False
    command: tuple[str, ...] = ()


async def carry_out(
    campaign: Campaign, settings: Settings, view: View, stop: asyncio.Event
) -> Result:
    """Measure until the plan ends or `stop` is set; what is left then is a valid partial result.

    `result.json` is written after each point, so even a killed run leaves what it has found.
    Raises `BadScenario` where a pool would not fit the server, before any load is sent.
    """
    async with _bench(campaign, settings, view, stop) as bench:
        about = await _about(campaign, settings, bench)
        points: list[Point] = []

        def so_far(*, partial: bool, capacity: float | None = None) -> Result:
            result = Result(
                kind=campaign.kind,
                partial=partial,
                about=about.model_copy(update={"ended_at": datetime.now(UTC)}),
                points=tuple(points),
                capacity_per_second=capacity,
            )
            save_result(result, campaign.out / "result.json")
            return result

        plan = campaign.plan()
        try:
            trial = next(plan)
            began = monotonic()
            while True:
                point = await measure(bench, trial.scenario, repeat=trial.repeat, order=len(points))
                if point is not None:
                    points.append(point)
                if stop.is_set() or point is None:
                    return so_far(partial=True)
                so_far(partial=True)
                view.point(point, (monotonic() - began) / len(points) * trial.left)
                trial = plan.send(point)
        except StopIteration as end:
            return so_far(partial=False, capacity=end.value)


@asynccontextmanager
async def _bench(
    campaign: Campaign, settings: Settings, view: View, stop: asyncio.Event
) -> AsyncIterator[Bench]:
    async with (
        open_sandbox(
            settings.database,
            into_service=campaign.into_service_database,
            check=lambda room: check_fits(campaign.scenarios, room),
        ) as sandbox,
        open_queues(settings.broker, sandbox, campaign.scenarios),
    ):
        url = pool_url(sandbox, campaign.scenario)
        async with sandbox.outside.connect() as connection:
            postmaster = await postmaster_pid(connection)
        campaign.out.mkdir(parents=True, exist_ok=True)
        yield Bench(
            sandbox,
            view,
            stop,
            postmaster,
            lambda scenario: _order(scenario, sandbox, settings, url),
        )


def pool_url(sandbox: Sandbox, scenario: Scenario) -> str:
    """The address that the pool under test has; raises `BadScenario` where it is wanted in vain."""
    if scenario.database.through == "direct":
        return sandbox.settings.url.get_secret_value()
    try:
        url = make_url(os.environ.get(BOUNCER, ""))
    except ArgumentError:
        raise BadScenario(
            f"database.through='pgbouncer' needs the address of your PgBouncer: set {BOUNCER}="
            "postgresql+asyncpg://account:password@host:6432/. It must let the account into every "
            "database (`*`), or into the service's: --into-service-database"
        ) from None
    return url.set(database=sandbox.database).render_as_string(hide_password=False)


def check_fits(scenarios: Iterable[Scenario], server: Room) -> None:
    """Raise `BadScenario` where a pool may open more connections than the server has left."""
    largest = max(scenarios, key=lambda scenario: scenario.server_connections)
    room = server.left - OWN_CONNECTIONS
    if largest.server_connections > room:
        raise BadScenario(
            f"pool.pool_size={largest.pool.pool_size} and pool.max_overflow="
            f"{largest.pool.max_overflow} may open {largest.connections} connections, and the "
            f"server has room for {room}: of max_connections={server.most}, "
            f"{server.reserved} are reserved, {server.others} in use by others, "
            f"{OWN_CONNECTIONS} for the lab itself. Make the pool smaller, or raise "
            "max_connections"
        )


def _order(scenario: Scenario, sandbox: Sandbox, settings: Settings, url: str) -> LabOrder:
    return LabOrder(
        scenario=scenario,
        url=url,
        application_name=sandbox.name,
        namespace=sandbox.name,
        broker_url=settings.broker.url.get_secret_value(),
        base=_plain(settings),
    )


def _plain(settings: Settings) -> dict[str, Any]:
    """The worker's other settings: those with addresses in them travel by themselves."""
    members = settings.model_dump(mode="json", exclude={"health", "authorization"})
    for section in ("broker", "database"):
        members[section].pop("url")
    return members


async def _about(campaign: Campaign, settings: Settings, bench: Bench) -> About:
    async with bench.sandbox.outside.connect() as connection:
        postgresql = await connection.scalar(text("SHOW server_version"))
    now = datetime.now(UTC)
    return About(
        command=campaign.command,
        scenario=campaign.scenario.name,
        scenario_values=campaign.scenario.model_dump(mode="json", exclude_none=True),
        seed=campaign.scenario.seed,
        started_at=now,
        ended_at=now,
        versions={
            "worker": __version__,
            **{name: version(name) for name in ("sqlalchemy", "asyncpg")},
            "python": platform.python_version(),
            "postgresql": str(postgresql),
        },
        machine=Machine(
            cpu=_cpu_name(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
            memory_bytes=psutil.virtual_memory().total,
            system=f"{platform.system()} {platform.release()}",
            database_is_local=bench.postmaster is not None,
        ),
        settings={
            f"WORKER_{'__'.join(path).upper()}": str(value)
            for path, value in _leaves(_plain(settings))
        },
        objective=campaign.objective,
    )


def _leaves(members: dict[str, Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, value in members.items():
        if isinstance(value, dict):
            for path, leaf in _leaves(value):
                yield (name, *path), leaf
        elif value is not None:
            yield (name,), value


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
