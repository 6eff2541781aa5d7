"""The deliveries of one subscription, and their acknowledgement in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile

from aiormq.channel import Channel

PATIENCE_SECONDS = 5.0
"""How long one delivery may keep those after it from being acknowledged together with it."""
CROWDED = 0.75
"""The part of the prefetch that these may take up before that time. Each acknowledgement of its
own is an entry in the queue's log, and only a window without room has need of one."""


class AckWindow:
    """The deliveries of one subscription that are not acknowledged yet.

    Acknowledgements leave from one task, in order. `multiple` covers all up to the low-water mark,
    below which everything is settled; what is settled above a straggler is acknowledged one by one
    when it crowds the window, so that a command that waits for its retry does not use up the
    prefetch.
    """

    def __init__(self, channel: Channel, prefetch: int) -> None:
        self._channel = channel
        self._most_settled = CROWDED * prefetch
        self._open: dict[int, bool] = {}  # tag -> settled, in the order delivered
        self._settled = 0
        self._rejected: dict[int, None] = {}  # in the order of their rejection
        self._begun: set[int] = set()
        self._at_rest = asyncio.Event()
        self._changed = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._ended = False
        self.newest = 0
        """The last delivery that came."""
        self.closed = False
        """Whether no work may begin on what is not settled: the broker delivers it again."""

    def add(self, tag: int) -> None:
        """A delivery came."""
        self._open[tag] = False
        self.newest = tag

    def begin(self, tag: int) -> None:
        """Work on a delivery begins."""
        self._begun.add(tag)

    def defer(self, tag: int) -> None:
        """Work on a delivery has ended with nothing; it will begin again."""
        self._begun.discard(tag)
        if not self._begun:
            self._at_rest.set()

    def settle(self, tag: int) -> None:
        """A delivery is answered."""
        self.defer(tag)
        if self._open.get(tag) is False and tag not in self._rejected:
            self._open[tag] = True
            self._settled += 1
            self._changed.set()

    def __len__(self) -> int:
        """How many deliveries are not acknowledged."""
        return len(self._open)

    def reject(self, tag: int) -> None:
        """The broker itself is to make a dead letter of a delivery."""
        self.defer(tag)
        if self._open.get(tag) is False:
            self._rejected[tag] = None
            self._changed.set()

    def hold(self) -> None:
        """Let no work begin any more; what has begun may still be settled."""
        self.closed = True

    async def at_rest(self) -> None:
        """Return once nothing that has begun is left."""
        while self._begun:
            self._at_rest.clear()
            await self._at_rest.wait()

    def close(self) -> None:
        """The broker will deliver all of it again."""
        self.closed = self._ended = True
        self._open.clear()
        self._rejected.clear()
        self._settled = 0
        self._changed.set()

    async def acknowledge(self) -> None:
        """Acknowledge what is settled, as it comes, until the channel ends."""
        now = asyncio.get_running_loop().time
        until: float | None = None  # when patience with the straggler ends, if there is one
        while not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            self._changed.clear()
            advanced = await self.flush()
            late = until is not None and now() >= until and not advanced
            if late or self._settled >= self._most_settled:
                await self.flush(stragglers=True)
            if not self._settled:
                until = None
            elif advanced or until is None:
                until = now() + PATIENCE_SECONDS

    async def flush(self, *, stragglers: bool = False) -> bool:
        """Acknowledge up to the low-water mark, and say whether it rose.

        With `stragglers` also what is settled above it.
        """
        # First, and each alone: no acknowledgement of several may take them along.
        for tag in [*self._rejected]:
            await self._channel.basic_reject(tag, requeue=False, wait=False)
            self._rejected.pop(tag, None)
            self._forget([tag])
        below = list(takewhile(self._open.__getitem__, self._open))
        if below:
            await self._channel.basic_ack(below[-1], multiple=True, wait=False)
            # Only now: what was not sent, because this was cancelled, is still to be sent.
            self._forget(below)
        if stragglers:
            for tag in [tag for tag, settled in self._open.items() if settled]:
                await self._channel.basic_ack(tag, wait=False)
                self._forget([tag])
        self._acknowledged.set()
        return bool(below)

    def _forget(self, tags: Sequence[int]) -> None:
        for tag in tags:
            if self._open.pop(tag, False):
                self._settled -= 1

    async def only(self, tags: set[int]) -> None:
        """Return once nothing but these deliveries is left."""
        while self._open.keys() - tags:
            self._acknowledged.clear()
            await self._acknowledged.wait()
