"""Whether messages can leave at all, and since when they cannot."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Outage:
    """An outage that begins and ends, again and again; it lasts when this is made."""

    def __init__(self) -> None:
        self._on = asyncio.Event()
        self._on.set()
        self._over = asyncio.Event()

    def begin(self) -> None:
        """From now on, unless it lasts already."""
        self._over.clear()
        self._on.set()

    def end(self) -> None:
        """It is over."""
        self._on.clear()
        self._over.set()

    async def over(self) -> None:
        """Return once there is none."""
        await self._over.wait()

    async def lasting(self, seconds: float) -> None:
        """Return once it has lasted that long without a break."""
        while True:
            await self._on.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._over.wait()
                continue
            return
