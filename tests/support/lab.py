"""Measures one point on the servers of this run, as the lab does, without its command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from dev.databases import dsn
from worker.lab.director import Bench, measure
from worker.lab.measured import Point
from worker.lab.observer import postmaster_pid
from worker.lab.sandbox import Sandbox, open_sandbox
from worker.lab.scenario import Scenario
from worker.lab.scenario_files import load_scenario
from worker.lab.setting import Setting
from worker.lab.target import LabOrder
from worker.settings.settings import DatabaseSettings


class NoView:
    """Shows nothing, and remembers how full the pool was."""

    def __init__(self) -> None:
        self.most_in_use = 0

    def begin(self, setting: Setting, seconds: float) -> None:
        pass

    def tick(self, tick: dict[str, Any]) -> None:
        self.most_in_use = max(self.most_in_use, tick["in_use"])


@asynccontextmanager
async def bench(url: str, *, into_service: bool = False) -> AsyncIterator[Bench]:
    """Where points are measured, beside a service's database."""
    settings = DatabaseSettings.model_validate({"url": url})
    async with open_sandbox(settings, into_service=into_service) as sandbox:
        async with sandbox.outside.connect() as connection:
            postmaster = await postmaster_pid(connection)
        yield Bench(
            sandbox,
            NoView(),
            asyncio.Event(),
            postmaster,
            lambda scenario: order(scenario, sandbox),
        )


def order(scenario: Scenario, sandbox: Sandbox) -> LabOrder:
    return LabOrder(
        scenario=scenario,
        url=sandbox.settings.url.get_secret_value(),
        application_name=sandbox.name,
        namespace=sandbox.name,
    )


async def measured(lab: Bench, scenario: Scenario) -> Point:
    """One point."""
    point = await measure(lab, scenario, repeat=0, order=0)
    assert point is not None
    return point


def short(name: str = "steady", *changes: str, seconds: float = 2.5) -> Scenario:
    """A scenario of some seconds."""
    times = [f"load.measure_seconds={seconds}", "load.warm_up_seconds=0.5"]
    return load_scenario(name, [*times, *changes])


def one_step(step: dict[str, Any], *changes: str, seconds: float = 2.5) -> Scenario:
    """`steady`, with this one step in place of its own."""
    scenario = short("steady", *changes, seconds=seconds)
    return Scenario.model_validate(scenario.model_dump() | {"step": [step]})


async def rows(url: str, query: str, *arguments: Any) -> list[Any]:
    """What the server says, on a connection of the test's own."""
    connection = await asyncpg.connect(dsn(url))
    try:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()
