"""The subscription to a queue that workers share.

A command that ends the whole process is met with care. The broker counts a redelivery against all
that was in hand, innocents included; so what has been redelivered several times is a suspect, and a
suspect runs with nothing else in hand. Only the culprit's count grows then.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from worker.broker.subscription import CLEARING_SECONDS, Subscription, Take, is_suspect
from worker.messages import Delivery


class SharedSubscription(Subscription):
    """One command at a time at first, then as many as may be.

    It begins with one, since the first to come may be a suspect; and it widens with the first that
    is none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hand_on: Take = self._take
        self._take = self._accept
        self._careful = True
        self._widening: asyncio.Task[None] | None = None
        self._set_aside: set[int] = set()
        self._suspect_came = asyncio.Event()

    async def begin_with_care(self) -> None:
        """Ask for the first command."""
        await self.consume(1)

    async def cancel(self) -> None:
        """Ask for no more; what was on its way has come when this returns."""
        if self._widening is not None:
            await self._widening
        await super().cancel()

    async def end(self) -> None:
        """Have nothing more to do with it; what is not acknowledged is delivered again."""
        if self._widening is not None:
            self._widening.cancel()
        await super().end()

    async def suspected(self) -> str:
        """Wait until a suspect has come among others, and those are done with; say so."""
        await self._suspect_came.wait()
        await self.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEARING_SECONDS):
                await self.window.only(self._set_aside)
        return "a command came that was in hand when workers died: it will run alone"

    async def _widen(self) -> None:
        # A prefetch holds for the consumers that come after it.
        await super().cancel()
        await self.consume(self._prefetch)

    def _accept(self, delivery: Delivery) -> None:
        suspect = is_suspect(delivery)
        if suspect and not self._careful:
            self._suspect_came.set()
        if self._suspect_came.is_set():
            # What comes after a suspect may have its key, and must not overtake it.
            self._set_aside.add(delivery.tag)
            return
        self._hand_on(delivery)
        if self._careful and not suspect:
            self._careful = False
            self._widening = asyncio.create_task(self._widen())
