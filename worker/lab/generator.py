"""The process that makes the load: `python -m worker.lab.generator FD`.

It does nothing but wait for the next intended time and send what is due, to the process under test
(`link.py`) or to the broker (`service_client.py`), so that it keeps time whatever the worker does.
It reads its orders, one JSON object, from stdin, and ends early when stdin ends; it writes how well
it kept time, one JSON object, to stdout. The end of the link is the end of the load.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import monotonic_ns
from typing import Any, Protocol

from worker.core.errors import WorkerError
from worker.core.tasks import cancel_all, first_of
from worker.lab.arrivals import Schedule
from worker.lab.link import LabLink, packed, sleep_until
from worker.lab.processes import runner

LATE_NS = 10_000_000
"""Beyond this, an arrival counts as late: begun later than meant, by the generator's fault."""

Answered = Callable[[int], None]
"""Is told of so many pieces of work that have ended."""


class LoadTarget(Protocol):
    """Where the load goes."""

    def send(self, times_ns: Sequence[int]) -> None:
        """Send work with these intended times, and never wait for it."""
        ...

    async def finish(self) -> dict[str, Any]:
        """Wait a moment for what is on its way; what the lab is told beside the punctuality."""
        ...


class Punctuality:
    """How much later than intended arrivals were sent, in microseconds, within the window."""

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self._begin_ns, self._end_ns = begin_ns, end_ns
        self._by_microseconds: Counter[int] = Counter()
        self.intended = 0
        self.late = 0

    def sent(self, intended_ns: int, now_ns: int) -> None:
        """An arrival was sent."""
        if not self._begin_ns <= intended_ns < self._end_ns:
            return
        self.intended += 1
        lateness_ns = max(now_ns - intended_ns, 0)
        self.late += lateness_ns > LATE_NS
        # Two digits are enough, and keep the table small however long it runs.
        microseconds = lateness_ns // 1000
        scale = 10 ** max(len(str(microseconds)) - 2, 0)
        self._by_microseconds[microseconds // scale * scale] += 1

    def told(self) -> dict[str, Any]:
        """What the lab is told in the end."""
        return {
            "intended": self.intended,
            "late": self.late,
            "lateness_microseconds": sorted(self._by_microseconds.items()),
        }


class LoadRun:
    """Sends what is due: arrivals of a schedule, or of clients that wait for their answers."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self._orders = orders
        self._load = orders["load"]
        self._until_ns: int = orders["until_ns"]
        self.punctuality = Punctuality(orders["from_ns"], self._until_ns)

    async def run(self, sender: LoadTarget) -> None:
        """Send until the window ends."""
        self._sender = sender
        if self._load["kind"] == "closed":
            await sleep_until(self._orders["begin_ns"])
            self._ask(self._load["clients"])
        else:
            await self._open(Schedule.of(self._load, seed=self._orders["seed"]))
        # The load ends with the window, not with the last arrival: it is measured until then.
        await sleep_until(self._until_ns)

    def answered(self, count: int) -> None:
        """So many pieces of work have ended: the clients of a closed load think, and ask again."""
        if self._load["kind"] == "closed":
            think = self._load["think_seconds"]
            asyncio.get_running_loop().call_later(think, self._ask, count)

    def _ask(self, count: int) -> None:
        now = monotonic_ns()  # a client asks when it asks: nothing was intended before
        if now < self._until_ns:
            self._send([now] * count)

    async def _open(self, schedule: Schedule) -> None:
        due: list[int] = []
        for time in schedule.times():
            intended = self._orders["begin_ns"] + round(time * 1e9)
            if intended > monotonic_ns():
                self._send(due)
                due = []
                await sleep_until(intended)
            due.append(intended)
        self._send(due)

    def _send(self, times_ns: Sequence[int]) -> None:
        now = monotonic_ns()
        for intended in times_ns:
            self.punctuality.sent(intended, now)
        if times_ns:
            self._sender.send(times_ns)


class LinkSender:
    """To the process under test."""

    def __init__(self, link: LabLink) -> None:
        self._link = link

    def send(self, times_ns: Sequence[int]) -> None:
        """Send arrivals."""
        self._link.write(packed(times_ns))

    async def finish(self) -> dict[str, Any]:
        """Wait until everything is sent, or for a second."""
        self._link.writer.transport.set_write_buffer_limits(0)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1):
                await self._link.writer.drain()
        return {}


@asynccontextmanager
async def open_link(socket_: socket.socket, answered: Answered) -> AsyncIterator[LinkSender]:
    """The way to the process under test."""
    link = await LabLink.open(socket_)

    async def read() -> None:
        async for answers in link.pieces():
            answered(len(answers))

    reading = asyncio.create_task(read())
    try:
        yield LinkSender(link)
    finally:
        await cancel_all([reading])
        link.writer.close()


def main() -> None:
    """Send as ordered, then tell how that went."""
    with suppress(OSError):
        os.nice(-10)  # where it may: the clock must not wait for what it measures
    link = socket.socket(fileno=int(sys.argv[1]))
    line = sys.stdin.readline()
    if not line:
        return  # the lab has ended, or thought better of it
    try:
        told = runner().run(_generate(json.loads(line), link))
    except WorkerError as error:
        told = {"error": str(error), "exit_code": error.exit_code}
    with suppress(BrokenPipeError):  # the lab is gone
        print(json.dumps(told), flush=True)  # noqa: T201


async def _generate(orders: dict[str, Any], link: socket.socket) -> dict[str, Any]:
    load = LoadRun(orders)
    if "namespace" in orders:
        from worker.lab.service_client import open_client

        opened: AbstractAsyncContextManager[LoadTarget] = open_client(orders, link, load.answered)
    else:
        opened = open_link(link, load.answered)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)
    async with opened as sender:
        (await first_of(stopped.wait(), load.run(sender))).result()
        return {**load.punctuality.told(), **await sender.finish()}


if __name__ == "__main__":
    main()
