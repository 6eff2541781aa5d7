"""The run's queues: gone at its end, whatever has happened to the processes that used them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from worker.broker.connection import connect
from worker.broker.sender import remove
from worker.broker.topology import Topology
from worker.lab.scenario import Scenario
from worker.settings import BrokerSettings


@asynccontextmanager
async def open_queues(
    settings: BrokerSettings, namespace: str, scenarios: Iterable[Scenario]
) -> AsyncIterator[None]:
    """Look whether the broker is there, where a scenario needs it, and leave nothing in it.

    Raises `Unreachable` or `Misconfigured` before any load is sent.
    """
    if all(scenario.path != "service" for scenario in scenarios):
        yield
        return
    name, topology = f"{namespace} lab", Topology(namespace, settings)
    async with connect(settings, name):
        pass
    try:
        yield
    finally:
        async with connect(settings, name) as connection:
            await remove(connection, topology)
