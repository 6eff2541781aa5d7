"""Commands of the path `service`: published confirmed, as publishers are told to do it.

Events are received as a client does, so that latency is from the intended time of a command to the
arrival of its event. For the live view a byte for each event goes into the link.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from time import monotonic_ns
from typing import Any

from worker.broker.client.subscriber import subscribe
from worker.broker.connection import connect, keep_connected
from worker.broker.publisher.publisher import Publisher
from worker.broker.topology import Topology
from worker.core.backoff import RECONNECT
from worker.core.messages import Publication
from worker.core.tasks import cancel_all, first_of
from worker.lab.generator import Answered
from worker.lab.pieces import COMMAND, EVENT
from worker.lab.recorder import UNFINISHED, MeasuredWindow, WorkRecorder
from worker.settings.settings import BrokerSettings
from worker.telemetry.logging import configure_logging
from worker.telemetry.readiness import Component

FINISH_SECONDS = 2
"""How long events may still come once no more commands are published."""
LOOK_SECONDS = 0.001


class LabClient:
    """Publishes commands, and knows which of them have their event."""

    def __init__(
        self,
        publisher: Publisher,
        topology: Topology,
        orders: dict[str, Any],
        answered: Answered,
    ) -> None:
        self._publisher = publisher
        self._topology = topology
        self._answered = answered
        window = MeasuredWindow(orders["from_ns"], orders["until_ns"])
        self._recorder = WorkRecorder(window, orders["interval_seconds"])
        self._most_outstanding: int = orders["load"]["most_outstanding"]
        self._waiting: dict[str, int] = {}
        self._numbers = count()
        self._publishing: set[asyncio.Task[None]] = set()
        self._all_answered = asyncio.Event()

    def send(self, times_ns: Sequence[int]) -> None:
        """Publish a command for each of these intended times, as one piece."""
        publications = []
        for intended in times_ns:
            if len(self._waiting) >= self._most_outstanding:
                self._recorder.dropped(intended)
                continue
            id_ = f"{self._topology.namespace}-{next(self._numbers)}"
            self._waiting[id_] = intended
            self._recorder.started(intended)
            publications.append(self._publication(id_))
        if publications:
            task = asyncio.create_task(self._publish(publications))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish(self, publications: Sequence[Publication]) -> None:
        attempt = 0
        while publications:
            refused = await self._publisher.publish(publications)
            publications = [publications[number] for number in sorted(refused)]
            if publications:
                attempt += 1
                await asyncio.sleep(RECONNECT.delay(attempt))

    def _publication(self, id_: str) -> Publication:
        return Publication(
            self._topology.commands,
            COMMAND,
            json.dumps({"id": id_, "type": COMMAND}).encode(),
            content_type="application/json",
            type=COMMAND,
            correlation_id=id_,
        )

    def receive(self, type_: str, headers: Mapping[str, Any], body: bytes) -> None:
        """An event has come; one that comes again is no second answer."""
        intended = self._waiting.pop(str(headers.get("commandid")), None)
        if intended is None:
            return
        # Why a command was refused or given up, in the event's own word.
        error = None if type_ == EVENT else str(json.loads(body)["data"]["code"])
        self._recorder.ended(intended, error)
        self._answered(1)
        if not self._waiting:
            self._all_answered.set()

    async def finish(self) -> dict[str, Any]:
        """Wait a moment for the events that are still to come; the rest is unfinished."""
        self._all_answered.clear()
        if self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(FINISH_SECONDS):
                    await self._all_answered.wait()
        for intended in self._waiting.values():
            self._recorder.ended(intended, UNFINISHED)
        await cancel_all([*self._publishing])
        work = self._recorder.report(self._recorder.window.cut(monotonic_ns()))
        return {"work": work.model_dump(mode="json")}


@asynccontextmanager
async def open_client(
    orders: dict[str, Any], link: socket.socket, answered: Answered
) -> AsyncIterator[LabClient]:
    """The way through the broker; raises where a right is missing, or a queue differs."""
    configure_logging(level="error")
    settings = BrokerSettings.model_validate(orders["broker"])
    topology = Topology(orders["namespace"], settings)
    name, part = f"{topology.namespace} lab", Component("commands")
    publisher = Publisher(topology, part)
    link.setblocking(False)

    def tell(count: int) -> None:
        answered(count)
        with suppress(BlockingIOError, ConnectionError):
            link.send(bytes(count))

    client = LabClient(publisher, topology, orders, tell)
    with link:
        async with connect(settings, name) as connection:
            await subscribe(connection, topology, client.receive)
            serving = asyncio.create_task(keep_connected(settings, name, part, publisher.serve))
            try:
                (await first_of(_until_ready(part), asyncio.shield(serving))).result()
                yield client
            finally:
                await cancel_all([serving])


async def _until_ready(part: Component) -> None:
    while not part.ready:  # noqa: ASYNC110 - once, at first
        await asyncio.sleep(LOOK_SECONDS)
