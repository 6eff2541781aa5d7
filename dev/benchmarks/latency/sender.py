"""The generator: a process that sends commands at their times and says how late it was.

Reads an `Order` as JSON on stdin, and writes a `Sent` as JSON to stdout when all is confirmed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dev.benchmarks.amqp import open_link
from dev.benchmarks.commands import CREATE
from worker.lab.arrivals import Schedule

HEAD_START = 0.1
"""Seconds between being ready and the schedule's zero."""


@dataclass(frozen=True)
class Order:
    """What is to be sent, where and when."""

    broker_url: str
    queue: str
    schedule: Schedule
    seed: int
    """Of the commands; the first of so many are sent, in their order."""
    commands: int

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        members: dict[str, Any] = json.loads(text)
        return cls(**members | {"schedule": Schedule(**members["schedule"])})


@dataclass(frozen=True)
class Sent:
    """When the schedule began, on the clock that all processes share, and each command's delay."""

    begin: float
    lateness: Sequence[float]


async def send(order: Order) -> Sent:
    """Send each command at its time; one that is late is sent at once, the others keep theirs."""
    bodies = CREATE.bodies(order.commands, seed=order.seed)
    lateness = []
    async with open_link(order.broker_url) as link:
        begin = time.monotonic() + HEAD_START
        for body, offset in zip(bodies, order.schedule.times(), strict=False):
            if (ahead := begin + offset - time.monotonic()) > 0:
                # asyncio's own sleep is a millisecond late, and nothing else waits for this loop.
                time.sleep(ahead)  # noqa: ASYNC251
            link.send("", order.queue, [body])
            lateness.append(time.monotonic() - begin - offset)
            await asyncio.sleep(0)  # confirms are read
        await link.confirmed()
    return Sent(begin, lateness)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(send(Order.from_json(sys.stdin.read()))))))
