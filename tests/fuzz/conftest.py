"""A worker process to be fuzzed, and who sends to it and listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aio_pika.abc import AbstractIncomingMessage

from dev.benchmarks.amqp import open_link
from dev.footprint import Footprint, footprint, health_address, readiness
from dev.fuzz.hostile import Hostile
from dev.worker_processes import WorkerProcess
from tests.support.commandline import post
from tests.support.fuzz_journal import UNUSABLE, Verdict, settle
from tests.support.harness import Harness, Message, eventually

AT_ONCE = 500


@dataclass
class Station:
    """One worker process with queues and a database of its own."""

    harness: Harness
    worker: WorkerProcess
    log: Path
    letters: list[Message] = field(default_factory=list)

    async def listen(self) -> None:
        """Collect all events and dead letters from now on."""
        await self.harness.subscribe()
        # A consumer: taking them one by one costs the broker a write each.
        channel = await self.harness.connection.channel()
        queue = await channel.get_queue(f"{self.harness.settings.namespace}.dead-letters")

        async def collect(message: AbstractIncomingMessage) -> None:
            self.letters.append(
                Message(message.routing_key or "", message.body, message.headers, message)
            )

        await queue.consume(collect, no_ack=True)

    async def answered(self, sent: Sequence[Hostile]) -> Verdict:
        """Send the messages, wait for as many answers, and hold these against them.

        An answer too many is found here, or by the next call, or by `stop`.
        """
        exchange = f"{self.harness.settings.namespace}.commands"
        async with open_link(self.harness.settings.broker.url.get_secret_value()) as link:
            for first in range(0, len(sent), AT_ONCE):
                contents = [(it.header, it.body) for it in sent[first : first + AT_ONCE]]
                link.send_raw(exchange, "any", contents)
                await link.confirmed()
        events = self.harness.events
        await eventually(lambda: len(events) >= len(sent) or self._ended, within=60)
        owed = sum(event.data.get("code") in UNUSABLE for event in events)
        await eventually(lambda: len(self.letters) >= owed)
        verdict = settle(sent, events, self.letters)
        events.clear()
        self.letters.clear()
        return verdict

    async def footprint(self) -> Footprint:
        """What the worker takes up; it must be ready, too."""
        address = health_address(self.log)
        assert (await readiness(address))[0] == 200
        return await footprint(self.worker.process.pid, address)

    async def stop(self) -> list[str]:
        """Stop the worker in order, and tell what is left behind: messages and late answers."""
        code = await self.worker.stop()
        await post(self.harness, "the.last", {"data": {}})
        events = self.harness.events
        await eventually(lambda: events and events[-1].routing_key == "the.last")
        left = [f"exit code {code}"] if code else []
        left += [f"late: {late.body[:200]!r}" for late in (*events[:-1], *self.letters)]
        # What was delivered and not acknowledged is ready again, now that the worker is gone.
        for queue in ("commands", "dead-letters"):
            if count := await self.harness.waiting(queue):
                left.append(f"{count} messages in {queue}")
        return left

    @property
    def _ended(self) -> bool:
        return self.worker.process.returncode is not None


@pytest.fixture
async def station(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> AsyncIterator[Station]:
    log = tmp_path / "worker.log"
    # What is freed goes back to the system, so that resident memory is memory in use.
    freeing = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    # A broker that a busy machine holds up is not sent an answer twice.
    patient = {"WORKER_BROKER__CONFIRM_TIMEOUT_SECONDS": "300"}
    worker = WorkerProcess(environment | freeing | patient, log)
    await worker.start()
    try:
        station = Station(harness, worker, log)
        await station.listen()
        yield station
    finally:
        await worker.end()
