"""The subscription to a queue that workers share.

A command that ends the whole process is met with care. The broker counts a redelivery against all
that was in hand, innocents included; so what has been redelivered several times is a suspect, and a
suspect runs with nothing else being carried out. It is not sent back to be met better prepared: the
broker would count that, too, and among several busy workers a suspect, and all that was delivered
behind it, went round until the broker itself set them aside, without an event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from worker.broker.subscription import CLEARING_SECONDS, Subscription, Take, is_suspect
from worker.messages import Delivery


class SharedSubscription(Subscription):
    """One command at a time at first, then as many as may be.

    It begins with one, since the first to come may be a suspect; and it widens with the first that
    is none. When a suspect comes later, it asks for no more until that one is done with.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hand_on: Take = self._take
        self._take = self._accept
        self._careful = True
        self._changing: asyncio.Task[None] | None = None
        self._set_aside: deque[Delivery] = deque()
        self._suspect_came = asyncio.Event()

    async def begin_with_care(self) -> None:
        """Ask for the first command."""
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

    async def meet_suspects(self) -> None:
        """Carry out alone each suspect that comes among others, for ever."""
        while True:
            await self._suspect_came.wait()
            await self._change(super().cancel())
            while self._set_aside:
                await self._only_what_is_set_aside()
                self._hand_on_up_to_next_suspect()
            await self._only_what_is_set_aside()
            self._suspect_came.clear()
            await self._change(self.consume(self._prefetch))

    async def _only_what_is_set_aside(self) -> None:
        """Wait for what is being carried out; not for ever, since it may itself have to wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEARING_SECONDS):
                await self.window.only({delivery.tag for delivery in self._set_aside})

    def _hand_on_up_to_next_suspect(self) -> None:
        """A suspect alone, or the innocent ones before the next: in the order delivered."""
        first = self._set_aside.popleft()
        self._hand_on(first)
        while not is_suspect(first) and self._set_aside and not is_suspect(self._set_aside[0]):
            self._hand_on(self._set_aside.popleft())

    async def _change(self, how: Coroutine[Any, Any, None]) -> None:
        """Ask the broker for something else, to the end: a call that is broken off breaks all."""
        if self._changing is not None:
            await self._changing
        self._changing = asyncio.create_task(how)
        await asyncio.shield(self._changing)

    def _accept(self, delivery: Delivery) -> None:
        suspect = is_suspect(delivery)
        if suspect and not self._careful:
            self._suspect_came.set()
        if self._suspect_came.is_set():
            # What comes after a suspect may have its key, and must not overtake it.
            self._set_aside.append(delivery)
            return
        self._hand_on(delivery)
        if self._careful and not suspect:
            self._careful = False
            self._changing = asyncio.create_task(self._widen())

    async def _widen(self) -> None:
        # A prefetch holds for the consumers that come after it.
        await super().cancel()
        await self.consume(self._prefetch)
