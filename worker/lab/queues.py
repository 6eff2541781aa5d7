"""The run's queues: gone at its end, whatever has happened to the processes that used them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext, suppress

from worker.broker.client.client import remove
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.core.errors import WorkerError
from worker.lab.sandbox import Sandbox
from worker.lab.scenario import Scenario
from worker.settings.settings import BrokerSettings


@asynccontextmanager
async def open_queues(
    settings: BrokerSettings, sandbox: Sandbox, scenarios: Iterable[Scenario]
) -> AsyncIterator[None]:
    """Look whether the broker is there, where a scenario needs it, and leave nothing in it.

    What dead runs have left goes too, if the broker can be reached. Raises `Unreachable` or
    `Misconfigured` before any load is sent.
    """
    needed = any(scenario.path == "service" for scenario in scenarios)
    if sandbox.leftovers:
        with nullcontext() if needed else suppress(WorkerError):
            await _remove(settings, *sandbox.leftovers)
    if not needed:
        yield
        return
    # Nothing is there yet; but now it is known that the broker answers.
    await _remove(settings, sandbox.name)
    try:
        yield
    finally:
        await _remove(settings, sandbox.name)


async def _remove(settings: BrokerSettings, *namespaces: str) -> None:
    async with connect(settings, f"{namespaces[0]} lab") as connection:
        for namespace in namespaces:
            await remove(connection, Topology(namespace, settings))
