"""Stand-ins for what the worker talks to, small enough to be seen to be right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from worker.codec.codec import Codec
from worker.core.backoff import Backoff
from worker.core.messages import Command, Delivery, Done, Envelope, Job, ResultEvent, Settled
from worker.core.registry import load_registry

REGISTRY = load_registry("worker.entities")
NO_WAIT = Backoff(base_seconds=0, cap_seconds=0)
"""In place of the waits between attempts to reach a server."""

ANN = {"username": "ann", "email": "ann@example.com"}


def make_codec(**options: Any) -> Codec:
    own = frozenset({"worker.commands", "worker.events", "worker.dead-letters"})
    return Codec(REGISTRY, **{"own_queues": own, **options})


@dataclass(eq=False)
class FakeSource:
    """A subscription that notes what is settled."""

    closed: bool = False
    settled: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)

    def begin(self, tag: int) -> None:
        assert tag not in self.begun
        self.begun.add(tag)

    def defer(self, tag: int) -> None:
        self.begun.remove(tag)

    def settle(self, tag: int) -> None:
        self.begun.discard(tag)
        if not self.closed:
            self.settled.append(tag)

    def reject(self, tag: int) -> None:
        self.begun.discard(tag)
        if not self.closed:
            self.rejected.append(tag)


def delivery(body: bytes | str | Mapping[str, Any], **properties: Any) -> Delivery:
    if isinstance(body, Mapping):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    return Delivery(body, **{"tag": 1, "source": FakeSource(), **properties})


_tags = count(1)


def make_job(
    key: str | None = None,
    *,
    id_: str | None = None,
    source: FakeSource | None = None,
    delivery_count: int = 0,
) -> Job:
    """A job whose tag tells it from all others."""
    came = Delivery(
        b"{}",
        next(_tags),
        source if source is not None else FakeSource(),
        delivery_count=delivery_count,
    )
    return Job(Command(Envelope(came, id=id_, type="user.create", key=key), "user", "create"))


def tag_of(job: Job) -> int:
    return job.envelope.delivery.tag


def done(job: Job) -> Done:
    return Done(ResultEvent(f"event-{tag_of(job)}", "user.created", b"{}"))


async def is_up(_: BaseException) -> bool:
    """What a database that is up says, whatever has failed."""
    return True


def settle(settled: Sequence[tuple[Job, Settled]]) -> None:
    """What whoever answers commands does once that is confirmed."""
    for job, _ in settled:
        job.envelope.delivery.source.settle(tag_of(job))


async def turns(number: int = 30) -> None:
    """Let everything that can go on without anything from outside go on."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(look: Callable[[], object]) -> None:
    """Let the loop turn until that is true."""
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - what is looked at is not ours to signal
            await asyncio.sleep(0)
