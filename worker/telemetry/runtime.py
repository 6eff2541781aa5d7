"""What `/metrics` shows of the process itself, beside `process_*`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from worker.telemetry.instruments import Instrument, Reading

TASKS = Instrument(
    "worker.event_loop.tasks",
    "gauge",
    "{task}",
    "Tasks of the event loop; grows for ever where something leaks.",
)
RUNTIME: tuple[Instrument, ...] = (TASKS,)


def read() -> Iterator[tuple[Instrument, Iterable[Reading]]]:
    """Reads the instruments; to be called within the event loop."""
    yield TASKS, [({}, len(asyncio.all_tasks()))]
