"""Tasks that belong together: the first of them, all of them, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

F = TypeVar("F", bound=asyncio.Future[Any])

CANCEL_AGAIN_SECONDS = 1
"""Longer than a channel takes to close, unless the broker is frozen."""


async def first_of(*waits: Awaitable[Any]) -> asyncio.Future[Any]:
    """Wait until one of these is done, end the others, and return the one."""
    futures = _begun(waits)
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return done.pop()
    finally:
        await end(futures)


async def together(*works: Awaitable[None]) -> None:
    """Do all of these; what one raises ends the others, and is raised."""
    futures = _begun(works)
    try:
        await asyncio.gather(*futures)
    finally:
        await end(futures)


def _begun(works: Iterable[Awaitable[Any]]) -> list[asyncio.Future[Any]]:
    # Of several that fail at once, one is told of.
    return [told_elsewhere(asyncio.ensure_future(work)) for work in works]


def told_elsewhere(future: F) -> F:
    """The same; that it failed shows elsewhere, so asyncio need not warn that nobody asked."""
    future.add_done_callback(lambda it: it.cancelled() or it.exception())
    return future


async def end(futures: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them until they have ended; aiormq swallows what comes as it closes a channel."""
    pending = {future for future in futures if not future.done()}
    while pending:
        for future in pending:
            future.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*futures, return_exceptions=True)
