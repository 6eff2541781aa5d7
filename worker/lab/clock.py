"""The monotonic clock, which all processes of a machine share."""

from __future__ import annotations

import asyncio
from time import monotonic_ns


async def sleep_until(when_ns: int) -> None:
    """Return once the time has come; at once if it has passed."""
    # A timer may come a little early, uvloop's by a millisecond.
    while (ahead := when_ns - monotonic_ns()) > 0:  # noqa: ASYNC110 - time is no event
        await asyncio.sleep(ahead / 1e9)
