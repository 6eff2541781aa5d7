"""`worker demo`: a few commands and the events that answer them, before your eyes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from worker.cli.prepare import complete, read_settings
from worker.core.errors import Unreachable, WorkerError

if TYPE_CHECKING:
    from worker.broker.topology import Topology
    from worker.settings.settings import Settings
    from worker.telemetry.health import Health

READY_SECONDS = 15

BY_HAND = """\
The same by hand, each in a terminal of its own:

  worker run                           # or: make run
  worker watch
  worker publish user.create username=ann email=ann@example.com --wait
  worker publish user.update rating=4.5 --target username=ann --wait
  worker publish order.create user.username=ann --wait

`worker --help` shows the rest.
"""


class DemoFailed(WorkerError):
    """Something did not come as it must; exit code 1."""


def demo() -> None:
    """Show a few commands and the events that answer them.

    Runs a worker for some seconds, with queues of its own and the database of the settings, and
    takes everything away again. Needs RabbitMQ, and PostgreSQL with the schema in place
    (`worker migrate`). Exit code 0 only if every event came as expected.

    \b
    Example:
      worker demo
    """
    settings = read_settings()
    own = settings.model_copy(
        update={
            "namespace": f"demo-{uuid4().hex[:8]}",
            "health": settings.health.model_copy(update={"port": 0}),
        }
    )
    complete(_demo(own))


async def _demo(settings: Settings) -> None:
    from worker.broker.client.client import open_sender
    from worker.broker.topology import Topology
    from worker.cli.play import Play
    from worker.codec.codec import Codec
    from worker.core.registry import load_registry

    topology = Topology.of(settings)
    async with (
        _nothing_left(settings, topology),
        _worker(settings),
        open_sender(settings.broker, topology, topology.namespace) as sender,
    ):
        play = Play(sender, topology, Codec(load_registry(settings.entities)))
        await play.perform()
    play.close(BY_HAND)
    if play.missing:
        raise DemoFailed("not as it must be: " + "; ".join(play.missing))


@asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[None]:
    """A worker in this process, ready; stopped in order at the end."""
    from worker.database.engine import make_engine
    from worker.database.migrations import check_schema
    from worker.service.service import Service

    # A worker would wait for the database; a demo says at once what is missing.
    engine = make_engine(settings.database, name=settings.namespace)
    try:
        await check_schema(engine)
    finally:
        await engine.dispose()
    service = Service(settings)
    running = asyncio.create_task(service.run())
    try:
        until = monotonic() + READY_SECONDS
        while not service.health.ready:
            if running.done():
                await running
            if monotonic() > until:
                raise Unreachable(_why(service.health))
            await asyncio.sleep(0.02)
        yield
    finally:
        service.stop()
        await asyncio.wait({running})
    await running


def _why(health: Health) -> str:
    parts = [health.part(name) for name in ("database", "commands", "events")]
    reasons = dict.fromkeys(part.reason for part in parts if part.reason is not None)
    return f"no worker was ready within {READY_SECONDS} s: {'; '.join(reasons)}"


@asynccontextmanager
async def _nothing_left(settings: Settings, topology: Topology) -> AsyncIterator[None]:
    """Queues and exchanges of the demo's own are deleted at the end."""
    from worker.broker.client.client import remove
    from worker.broker.connection import connect

    # First of all it is seen whether the broker can be reached: a worker would wait for it.
    async with connect(settings.broker, topology.namespace) as connection:
        try:
            yield
        finally:
            await remove(connection, topology)
