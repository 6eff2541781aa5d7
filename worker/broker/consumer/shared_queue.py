"""The subscription to a queue that workers share.

A command that ends the whole process is met with care. The broker counts a redelivery against all
that was in hand, innocents included; so what has been redelivered several times is a suspect, and
runs in ever smaller company, in the end alone. Then only the culprit's count grows.

A suspect is not sent back to be met better prepared: the broker would count that, too, and among
several busy workers a suspect, and all that was delivered behind it, went round until the broker
itself set them aside, without an event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from worker.broker.consumer.subscription import (
    CLEARING_SECONDS,
    SUSPECT_DELIVERIES,
    Subscription,
    Take,
)
from worker.core.messages import Delivery
from worker.core.tasks import ignore_exception

FEWER = 4
"""By how much each further redelivery divides the company of a suspect."""


class SharedSubscription(Subscription):
    """One command at a time at first, then as many as may be.

    It begins with one, since the first to come may be a suspect; and it widens to the company that
    each bears. When one comes that bears less, it asks for no more until that one is done with.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hand_on: Take = self._take
        self._take = self._accept
        self._alone_from = SUSPECT_DELIVERIES
        self._room = 1
        self._changing: asyncio.Task[None] | None = None
        self._set_aside: deque[Delivery] = deque()
        self._suspect_came = asyncio.Event()

    async def begin_with_care(self, delivery_limit: int) -> None:
        """Ask for the first command. `delivery_limit` is the queue's; half of it convicts."""
        # Half-way to the conviction, so that the innocent are told from the culprit before it.
        self._alone_from = max(SUSPECT_DELIVERIES, delivery_limit // 4 + 1)
        await self.consume(1)

    async def cancel(self) -> None:
        """Ask for no more; what was on its way has come when this returns."""
        if self._changing is not None:
            await self._changing
        await super().cancel()

    async def end(self) -> None:
        """Have nothing more to do with it; what is not acknowledged is delivered again."""
        if self._changing is not None:
            self._changing.cancel()
        await super().end()

    async def isolate_suspects(self) -> None:
        """Carry out in small company each suspect that comes among too many, for ever."""
        while True:
            await self._suspect_came.wait()
            await self._change(super().cancel())
            while self._set_aside:
                await self._only_what_is_set_aside()
                self._hand_on_next_batch()
            await self._only_what_is_set_aside()
            self._suspect_came.clear()
            self._room = self._prefetch
            await self._change(self.consume(self._prefetch))

    def _batch_limit(self, delivery: Delivery) -> int:
        """How many, itself included, may be carried out together with this one."""
        if delivery.delivery_count < SUSPECT_DELIVERIES:
            return self._prefetch
        further = max(0, self._alone_from - delivery.delivery_count)
        return min(self._prefetch, int(FEWER**further))

    async def _only_what_is_set_aside(self) -> None:
        """Wait for what is being carried out; not for ever, since it may itself have to wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEARING_SECONDS):
                await self.window.only({delivery.tag for delivery in self._set_aside})

    def _hand_on_next_batch(self) -> None:
        """In the order delivered, as many as all of them bear."""
        company, most = 0, self._prefetch
        while self._set_aside:
            most = min(most, self._batch_limit(self._set_aside[0]))
            if company and company >= most:
                return
            company += 1
            self._hand_on(self._set_aside.popleft())

    async def _change(self, how: Coroutine[Any, Any, None]) -> None:
        """Ask the broker for something else, to the end: a call that is broken off breaks all."""
        if self._changing is not None:
            await self._changing
        self._changing = ignore_exception(asyncio.create_task(how))
        await asyncio.shield(self._changing)

    def _accept(self, delivery: Delivery) -> None:
        company = self._batch_limit(delivery)
        if company < self._room:
            self._suspect_came.set()
        if self._suspect_came.is_set():
            # What comes after a suspect may have its key, and must not overtake it.
            self._set_aside.append(delivery)
            return
        self._hand_on(delivery)
        if company > self._room:
            self._room = company
            widening = asyncio.create_task(self._widen(company, self._changing))
            self._changing = ignore_exception(widening)  # the channel that ended it

    async def _widen(self, prefetch: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        # A prefetch holds for the consumers that come after it.
        await super().cancel()
        await self.consume(prefetch)
