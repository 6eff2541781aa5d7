"""The generator of the path `service`: `python -m worker.lab.service_generator FD`.

It publishes commands at their intended times, confirmed as publishers are told to do it, and
receives the events. So it sees what a client sees: the latency from the intended time of a command
to the arrival of its event. It takes the orders that `generator.py` takes and, beside how punctual
it was, tells what became of the work. For the live view it writes a byte for each event into the
link; the end of the link is the end of the load.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from time import monotonic_ns
from typing import Any

from worker.broker.client.subscriber import subscribe
from worker.broker.connection import connect, keep_connected
from worker.broker.publisher.publisher import Publisher
from worker.broker.topology import Topology
from worker.core.errors import WorkerError
from worker.core.messages import Publication
from worker.lab.arrivals import Schedule
from worker.lab.generator import Punctuality
from worker.lab.pieces import COMMAND, EVENT
from worker.lab.processes import runner
from worker.lab.recorder import UNFINISHED, Window, WorkRecorder
from worker.settings.settings import BrokerSettings
from worker.telemetry.logging import configure_logging
from worker.telemetry.readiness import Part

FINISH_SECONDS = 2
"""How long events may still come once no more commands are published."""

LOOK_SECONDS = 0.001


class Client:
    """Publishes commands, and knows which of them have their event."""

    def __init__(
        self, publisher: Publisher, topology: Topology, link: socket.socket, orders: dict[str, Any]
    ) -> None:
        self._publisher = publisher
        self._topology = topology
        self._link = link
        window = Window(orders["from_ns"], orders["until_ns"])
        self.punctuality = Punctuality(window.from_ns, window.until_ns)
        self.recorder = WorkRecorder(window, orders["interval_seconds"])
        self._most_outstanding: int = orders["most_outstanding"]
        self._waiting: dict[str, int] = {}
        self._numbers = count()
        self._publishing: set[asyncio.Task[None]] = set()
        self.answered = asyncio.Event()
        """Set with each event; a closed load asks again then."""
        self.answers = 0

    def send(self, times_ns: Sequence[int]) -> None:
        """Publish a command for each of these intended times, as one piece."""
        now = monotonic_ns()
        publications = []
        for intended in times_ns:
            self.punctuality.sent(intended, now)
            if len(self._waiting) >= self._most_outstanding:
                self.recorder.dropped(intended)
                continue
            id_ = f"{self._topology.namespace}-{next(self._numbers)}"
            self._waiting[id_] = intended
            self.recorder.started(intended)
            body = json.dumps({"id": id_, "type": COMMAND}).encode()
            publications.append(
                Publication(
                    self._topology.commands,
                    COMMAND,
                    body,
                    content_type="application/json",
                    type=COMMAND,
                    correlation_id=id_,
                )
            )
        if publications:
            task = asyncio.create_task(self._publisher.publish(publications))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    def receive(self, type_: str, headers: Mapping[str, Any], body: bytes) -> None:
        """An event has come; one that comes again is no second answer."""
        intended = self._waiting.pop(str(headers.get("commandid")), None)
        if intended is None:
            return
        self.recorder.ended(intended, None if type_ == EVENT else _code_of(body))
        self.answers += 1
        self.answered.set()
        with suppress(BlockingIOError, ConnectionError):
            self._link.send(b"\0")

    async def finish(self) -> None:
        """Wait a moment for the events that are still to come; the rest is unfinished."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while self._waiting:
                    self.answered.clear()
                    await self.answered.wait()
        for intended in self._waiting.values():
            self.recorder.ended(intended, UNFINISHED)
        self._waiting.clear()
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)


def _code_of(body: bytes) -> str:
    """Why a command was refused or given up, in the event's own word."""
    return str(json.loads(body)["data"]["code"])


def main() -> None:
    """Publish as ordered, then tell how that went."""
    configure_logging(level="error")
    link = socket.socket(fileno=int(sys.argv[1]))
    link.setblocking(False)
    line = sys.stdin.readline()
    if not line:
        return
    try:
        told = runner().run(_generate(json.loads(line), link))
    except WorkerError as error:
        told = {"error": str(error), "exit_code": error.exit_code}
    with suppress(BrokenPipeError):  # the lab is gone
        print(json.dumps(told), flush=True)  # noqa: T201


async def _generate(orders: dict[str, Any], link: socket.socket) -> dict[str, Any]:
    settings = BrokerSettings.model_validate(orders["broker"])
    topology = Topology(orders["namespace"], settings)
    name, part = f"{topology.namespace} lab", Part("commands")
    publisher = Publisher(topology, part)
    client = Client(publisher, topology, link, orders)
    with link:
        async with connect(settings, name) as connection:
            await subscribe(connection, topology, client.receive)
            serving = asyncio.create_task(keep_connected(settings, name, part, publisher.serve))
            try:
                while not part.ready and not serving.done():  # noqa: ASYNC110 - once, at first
                    await asyncio.sleep(LOOK_SECONDS)
                if serving.done():  # a right is missing, or a queue differs
                    serving.result()
                await _until_stopped(_load(client, orders))
                await client.finish()
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
    work = client.recorder.report(client.recorder.window.cut(monotonic_ns()))
    return {**client.punctuality.told(), "work": work.model_dump(mode="json")}


async def _until_stopped(load: Any) -> None:
    """Run the load to its end, or until stdin ends."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, stopped.set)
    stopping, loading = asyncio.create_task(stopped.wait()), asyncio.create_task(load)
    try:
        await asyncio.wait({stopping, loading}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
    finally:
        loop.remove_reader(sys.stdin)
        for task in (stopping, loading):
            task.cancel()
        await asyncio.gather(stopping, loading, return_exceptions=True)


async def _load(client: Client, orders: dict[str, Any]) -> None:
    if "clients" in orders:
        await _closed(client, orders)
    else:
        await _open(client, Schedule(**orders["schedule"]), orders["begin_ns"])
    # The link ends with the window, not with the last arrival: it is measured until then.
    await _sleep_until(orders["until_ns"])


async def _open(client: Client, schedule: Schedule, begin_ns: int) -> None:
    due: list[int] = []
    for time in schedule.times():
        intended = begin_ns + round(time * 1e9)
        if intended > monotonic_ns():
            if due:
                client.send(due)
                due = []
            await _sleep_until(intended)
        due.append(intended)
    if due:
        client.send(due)


async def _closed(client: Client, orders: dict[str, Any]) -> None:
    """So many clients: each asks, waits for its event, thinks, and asks again."""
    loop, think_seconds = asyncio.get_running_loop(), orders["think_seconds"]

    def ask() -> None:
        client.send([monotonic_ns()])  # a client asks when it asks: nothing was intended before

    await _sleep_until(orders["begin_ns"])
    for _ in range(orders["clients"]):
        ask()
    while monotonic_ns() < orders["until_ns"]:
        with suppress(TimeoutError):
            async with asyncio.timeout((orders["until_ns"] - monotonic_ns()) / 1e9):
                await client.answered.wait()
        client.answered.clear()
        for _ in range(client.answers):
            loop.call_later(think_seconds, ask)
        client.answers = 0


async def _sleep_until(time_ns: int) -> None:
    if (ahead := time_ns - monotonic_ns()) > 0:
        await asyncio.sleep(ahead / 1e9)


if __name__ == "__main__":
    main()
