"""The deliveries of one subscription, and their acknowledgement in order."""

from __future__ import annotations

import asyncio

from aiormq.channel import Channel

STRAGGLER_SECONDS = 0.05
"""How long a settled delivery may wait for those before it to be acknowledged together."""


class Window:
    """The deliveries of one subscription that are not acknowledged yet.

    Acknowledgements leave from one task, in order. `multiple` covers all up to the low-water mark,
    below which everything is settled; what is settled above a straggler is acknowledged one by one
    after a moment, so that a command that waits for its retry does not use up the prefetch.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._open: dict[int, bool] = {}  # tag -> settled, in the order delivered
        self._changed = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self.closed = False

    def add(self, tag: int) -> None:
        """A delivery came."""
        self._open[tag] = False

    def settle(self, tag: int) -> None:
        """A delivery is answered."""
        if not self.closed and tag in self._open:
            self._open[tag] = True
            self._changed.set()

    def close(self) -> None:
        """The broker will deliver all of it again."""
        self.closed = True
        self._open.clear()
        self._changed.set()

    async def acknowledge(self) -> None:
        """Acknowledge what is settled, as it comes, until the channel ends."""
        while not self.closed:
            await self._changed.wait()
            self._changed.clear()
            await self.flush()
            if True in self._open.values():
                await asyncio.sleep(STRAGGLER_SECONDS)
                await self.flush(stragglers=True)

    async def flush(self, *, stragglers: bool = False) -> None:
        """Acknowledge up to the low-water mark; with `stragglers` also what is settled above it."""
        below = []
        for tag, settled in self._open.items():
            if not settled:
                break
            below.append(tag)
        if below:
            await self._channel.basic_ack(below[-1], multiple=True, wait=False)
            # Only now: what was not sent, because this was cancelled, is still to be sent.
            for tag in below:
                self._open.pop(tag, None)
        if stragglers:
            for tag in [tag for tag, settled in self._open.items() if settled]:
                await self._channel.basic_ack(tag, wait=False)
                self._open.pop(tag, None)
        self._acknowledged.set()

    async def only(self, tags: set[int]) -> None:
        """Return once nothing but these deliveries is left."""
        while self._open.keys() - tags:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def give_back(self) -> None:
        """Return everything that is not settled to its place in the queue."""
        if self._open:
            await self._channel.basic_nack(max(self._open), multiple=True, requeue=True)
            self._open.clear()
