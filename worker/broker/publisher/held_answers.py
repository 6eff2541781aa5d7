"""Answers that the broker does not take: held apart from all others, and given up at last.

An answer that is held holds back those that come behind it with its key, and nothing else. An event
that is given up makes its command a dead letter; a dead letter that is given up is left to the
broker's own dead-lettering, which needs to publish nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import structlog

from worker.broker.errors import code_of, short_reason
from worker.broker.publisher.persistent_publisher import (
    Fault,
    Idle,
    MessageKind,
    PersistentPublisher,
)
from worker.broker.publisher.publications import Publications, set_aside
from worker.core.messages import DeadLetter, Job, Publication, Settled
from worker.core.tasks import cancel_all
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Component

log = structlog.get_logger(__name__)

HELD = Instrument(
    "worker.answers.held",
    "gauge",
    "{answer}",
    "Answers that RabbitMQ has not taken so far, and those behind them with the same keys.",
)
GIVEN_UP = Instrument(
    "worker.answers.given_up",
    "counter",
    "{answer}",
    "Events and dead letters that RabbitMQ did not take in all attempts, by why: its reply code, "
    "`nack`, `returned`, `silence` or `connection_lost`.",
    ("kind", "reason"),
)


@dataclass(slots=True)
class HeldAnswer:
    """An answer that waits; `fault` is what the broker said of its next message, if it did, and
    `at_first` how many of that kind it had taken before that."""

    job: Job
    outcome: Settled
    next: MessageKind
    fault: Fault | None = None
    at_first: int = 0


class HeldAnswers:
    """Holds answers, by key; `part` is down for as long as there are any.

    Of commands that the broker delivers again it holds no more than make `most` with the others.
    """

    def __init__(
        self, answers: Publications, publisher: PersistentPublisher, part: Component, *, most: int
    ) -> None:
        self._answers = answers
        self._publisher = publisher
        self._part = part
        part.reason = None  # nothing is held at first
        self._most = most
        self._number = 0
        self._by_key: dict[object, deque[HeldAnswer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()
        self._given_up: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Raise what ends any of its tasks; ends all of them."""
        try:
            await self._failed.wait()
            for task in self._tasks:
                if task.done():
                    task.result()
        finally:
            await cancel_all([*self._tasks])

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        given_up = self._given_up.items()
        yield HELD, [({}, self._number)]
        yield (
            GIVEN_UP,
            [({"kind": kind, "reason": why}, number) for (kind, why), number in given_up],
        )

    def number_taken(self, kind: MessageKind) -> int:
        """How many of that kind the broker has taken so far."""
        return self._publisher.number_taken(kind)

    def taken(self, kind: MessageKind, number: int) -> None:
        """The broker took so many that were not held."""
        self._publisher.taken(kind, number)

    def hold(self, held: HeldAnswer, because: Fault) -> None:
        """Try this one again, until it is taken or given up."""
        if self.holds_back(held):
            return
        # What has no key is behind nothing.
        key = object() if held.job.key is None else held.job.key
        self._by_key[key] = deque([held])
        self._number += 1
        self._part.down(f"an answer cannot leave: {_told(because)}")
        task = asyncio.create_task(self._work_off(key))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def holds_back(self, held: HeldAnswer) -> bool:
        """Put it behind what is held with its key, if anything is."""
        waiting = self._by_key.get(held.job.key)
        if waiting is None:
            return False
        waiting.append(held)
        self._number += 1
        return True

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failed.set()
        else:
            self._tasks.discard(task)

    async def _work_off(self, key: object) -> None:
        waiting = self._by_key[key]
        while waiting:
            with suppress(Idle):
                await self._answer(waiting[0])
            waiting.popleft()
            self._number -= 1
        del self._by_key[key]
        if not self._by_key:
            self._part.up()

    async def _answer(self, held: HeldAnswer) -> None:
        """Publish what is still owed for a command, and settle it."""
        job, outcome = held.job, held.outcome
        lost = None
        if isinstance(outcome, DeadLetter) and held.next is MessageKind.DEAD_LETTER:
            lost = await self._set_aside(held, outcome)
        held.next = MessageKind.EVENT
        fault = await self._insist(held, self._answers.event(job, outcome))
        if fault is not None and not isinstance(outcome, DeadLetter):
            held.next = MessageKind.DEAD_LETTER
            attempts = self._publisher.max_attempts
            lost = await self._set_aside(held, set_aside(job, outcome, _told(fault), attempts))
        delivery = job.envelope.delivery
        if lost is None:
            delivery.source.settle(delivery.tag)
        else:
            delivery.source.reject(delivery.tag)

    async def _set_aside(self, held: HeldAnswer, letter: DeadLetter) -> Fault | None:
        return await self._insist(held, self._answers.dead_letter(held.job, letter))

    async def _insist(self, held: HeldAnswer, publication: Publication) -> Fault | None:
        before, held.fault = held.fault, None
        at_first = self.number_taken(held.next) if before is None else held.at_first
        source = held.job.envelope.delivery.source

        def is_idle() -> bool:  # the broker delivers it again, to be answered once more
            return source.closed and self._number > self._most

        fault = await self._publisher.insist(held.next, publication, before, at_first, is_idle)
        if fault is not None:
            if source.closed:
                raise Idle
            self._give_up(held, fault)
        return fault

    def _give_up(self, held: HeldAnswer, fault: Fault) -> None:
        envelope = held.job.envelope
        self._given_up[held.next.value, short_reason(fault)] += 1
        log.error(
            "an answer could not be published",
            kind=held.next.value,
            id=envelope.id,
            type=envelope.type,
            reason=_told(fault),
            attempts=self._publisher.max_attempts,
        )


def _told(fault: Fault) -> str:
    code = code_of(fault)
    text = str(fault) or type(fault).__name__
    return text if code is None or str(code) in text else f"{code} {text}"
