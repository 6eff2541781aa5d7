"""Publishes one message again and again, apart from all others, until it is taken or given up.

It has so many attempts as a command has. One counts if the fault is about the message itself, if
the broker has taken others of its kind meanwhile, or if the message is the only one of its kind
that is refused and the broker is well when asked. The last is believed after ten seconds, and once,
until one is taken again. What several meet alike is an outage, and waits; so is silence alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import Enum
from itertools import count

from aiormq.exceptions import DeliveryError

from worker.broker.errors import ABOUT_THE_MESSAGE, code_of, is_about_all
from worker.broker.publisher.publisher import Publisher
from worker.core.backoff import RECONNECT
from worker.core.messages import Publication

Fault = BaseException

ALONE_SECONDS = 10
"""What is mended by then was an outage (guarantee G6)."""


class MessageKind(Enum):
    """What of an answer is published; the broker may take the one and not the other."""

    DEAD_LETTER = "dead_letter"
    EVENT = "event"


class Blame(Enum):
    """What a fault says of the message that met it."""

    NONE = "an outage"
    ALONE = "it is the only one"
    PROVEN = "others are taken, or the broker says so"


class Idle(Exception):
    """Nobody needs what would be published."""


class PersistentPublisher:
    """Knows of each kind of message whether the broker takes any."""

    def __init__(self, publisher: Publisher, *, max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self._publisher = publisher
        self._taken: Counter[MessageKind] = Counter()
        self._refused: set[MessageKind] = set()  # of which none is taken just now
        self._unproven: set[MessageKind] = set()  # of which one was given up, and none taken since
        self._insisting: Counter[MessageKind] = Counter()
        self._asking = {kind: asyncio.Lock() for kind in MessageKind}

    def number_taken(self, kind: MessageKind) -> int:
        """How many of that kind the broker has taken so far."""
        return self._taken[kind]

    def taken(self, kind: MessageKind, number: int) -> None:
        """The broker took so many of that kind."""
        if number:
            self._taken[kind] += number
            self._refused.discard(kind)
            self._unproven.discard(kind)

    async def insist(
        self,
        kind: MessageKind,
        publication: Publication,
        fault: Fault | None,
        at_first: int,
        is_idle: Callable[[], bool],
    ) -> Fault | None:
        """Publish what met this `fault` before; return why it was given up, if it was.

        `at_first` is how many of its kind had been taken before it was sent for the first time.
        Raises `Idle` once `is_idle` says that nobody needs it.
        """
        self._insisting[kind] += 1
        try:
            counted, taken_before = int(fault is not None), self._taken[kind]
            now = asyncio.get_running_loop().time
            began = now()
            for attempt in count(1):
                if is_idle():
                    raise Idle
                fault = await self._try(kind, publication, fault, attempt)
                if fault is None:
                    self.taken(kind, 1)
                    return None
                blame = await self._blame(kind, fault, at_first, taken_before)
                counted += blame is not Blame.NONE
                taken_before = self._taken[kind]
                sure = blame is Blame.PROVEN or now() - began >= ALONE_SECONDS
                if counted >= self.max_attempts and sure:
                    break
            if self._taken[kind] == at_first:
                self._unproven.add(kind)
            return fault
        finally:
            self._insisting[kind] -= 1

    async def _blame(
        self, kind: MessageKind, fault: Fault, at_first: int, taken_before: int
    ) -> Blame:
        """Whether it is the message that is at fault, and no outage."""
        if code_of(fault) in ABOUT_THE_MESSAGE or self._taken[kind] > taken_before:
            return Blame.PROVEN
        may_be_alone = (
            kind not in self._unproven
            and not is_about_all(fault)
            # Of a broker that is silent nothing tells that it is not slow to all.
            and not (isinstance(fault, TimeoutError) and self._taken[kind] == at_first)
        )
        if await self._publisher.is_well() and may_be_alone and self._insisting[kind] == 1:
            return Blame.ALONE
        self._refused.add(kind)
        return Blame.NONE

    async def _try(
        self, kind: MessageKind, publication: Publication, before: Fault | None, attempt: int
    ) -> Fault | None:
        """The fault of this attempt, if there is one; `before` is that of the last."""
        if kind not in self._refused:
            if before is not None:
                await asyncio.sleep(RECONNECT.delay(attempt))
            return await self._publish(publication, before)
        async with self._asking[kind]:
            if kind in self._refused:  # while none is taken, one asks for all
                await asyncio.sleep(RECONNECT.delay(attempt))
                fault = await self._publish(publication, before)
                if fault is None:
                    self._refused.discard(kind)
                return fault
        return await self._publish(publication, before)

    async def _publish(self, publication: Publication, before: Fault | None) -> Fault | None:
        if before is None or isinstance(before, DeliveryError | TimeoutError):
            return (await self._publisher.publish([publication])).get(0)
        return await self._publisher.publish_apart(publication)
