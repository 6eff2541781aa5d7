"""Tasks that belong together: the first of them, all of them, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=asyncio.Future[Any])

CANCEL_AGAIN_SECONDS = 1
"""Longer than a channel takes to close, unless the broker is frozen."""


class Ended(Exception):
    """Work that goes on until it is stopped has ended by itself."""


async def first_of(*waits: Awaitable[Any]) -> asyncio.Future[Any]:
    """Wait until one of these is done, end the others, and return the one."""
    futures = _begun(waits)
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return done.pop()
    finally:
        await cancel_all(futures)


async def gather_all(*works: Awaitable[None]) -> None:
    """Do all of these; what one raises ends the others, and is raised."""
    futures = _begun(works)
    try:
        await asyncio.gather(*futures)
    finally:
        await cancel_all(futures)


async def all_of(*works: Awaitable[None]) -> None:
    """The same for work of our own: one that was cancelled, by whoever it may be, has failed.

    Else nobody would notice that it is gone.
    """
    futures = _begun(works)
    pending = set(futures)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                result_of(future)
    finally:
        await cancel_all(futures)


def result_of(future: asyncio.Future[Any]) -> Any:
    """The result of one that is done; that it was cancelled is raised as `Ended`."""
    if future.cancelled():
        raise Ended(f"{future!r} was cancelled")
    return future.result()


def is_cancelled() -> bool:
    """Whether the running task is being cancelled; a `CancelledError` alone does not say so."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _begun(works: Iterable[Awaitable[Any]]) -> list[asyncio.Future[Any]]:
    # Of several that fail at once, one is told of.
    return [ignore_exception(asyncio.ensure_future(work)) for work in works]


def ignore_exception(future: F) -> F:
    """The same; that it failed shows elsewhere, so asyncio need not warn that nobody asked."""
    future.add_done_callback(lambda it: it.cancelled() or it.exception())
    return future


async def cancel_all(futures: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them until they have ended; aiormq swallows what comes as it closes a channel."""
    pending = {future for future in futures if not future.done()}
    while pending:
        for future in pending:
            future.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*futures, return_exceptions=True)


Family = dict[asyncio.Future[Any], str]
"""Tasks, and the names of their coroutines."""

_family: ContextVar[Family | None] = ContextVar("family", default=None)


def found_family() -> Family:
    """The tasks that are started in this context from now on, and by these in turn, as they come.

    None of them can end the event loop, as a `SystemExit` out of a task would.
    """
    loop = asyncio.get_running_loop()
    former = loop.get_task_factory()
    if not isinstance(former, _Factory):
        loop.set_task_factory(cast(Any, _Factory(former)))
    family: Family = {}
    _family.set(family)
    return family


class _Factory:
    """Makes tasks as the loop did before, and notes those of a family."""

    def __init__(self, former: Any) -> None:
        self._make = former or _plain_task

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Future[Any]:
        family = _family.get()
        if family is None:
            return self._make(loop, work, **options)
        task = self._make(loop, _contained(work), **options)
        family[task] = getattr(work, "__qualname__", repr(work))
        task.add_done_callback(lambda _: work.close())  # if it was cancelled before it began
        return task


def _plain_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    return asyncio.Task(work, loop=loop, **options)


async def _contained(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__} was raised in a task") from error
