"""What every short command begins with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from worker.cli.terminal import Misused
from worker.core.errors import Unreachable

if TYPE_CHECKING:
    from worker.core.registry import Registry
    from worker.settings.settings import Settings

T = TypeVar("T")


def read_settings() -> Settings:
    """The settings, with logging set up for a command that speaks for itself: warnings and up."""
    from worker.settings.settings import load_settings
    from worker.telemetry.logging import configure_logging

    settings = load_settings()
    level = settings.log_level
    configure_logging(level="warning" if level == "info" else level, form=settings.log_format)
    return settings


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run the work to its end."""
    try:
        return asyncio.run(work)
    except asyncio.CancelledError as error:
        # Ctrl-C is a KeyboardInterrupt; but aiormq cancels what waits on a link that breaks.
        raise Unreachable("The connection to RabbitMQ was lost") from error


def known_type(registry: Registry, type_: str, *, or_query: bool = False) -> str:
    """The type, if there is such a command (or query); raises `Misused` with those there are."""
    if registry.find(type_) or (or_query and registry.find_query(type_)):
        return type_
    from difflib import get_close_matches

    close = get_close_matches(type_, registry.types, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise Misused(
        f"there is no command type {type_!r}.{hint} Known types: {', '.join(registry.types)}"
    )


async def paced(rate: float | None) -> AsyncIterator[None]:
    """Steps that come at most `rate` times a second; as fast as they are asked for without one."""
    following = monotonic()
    while True:
        if rate is not None:
            await asyncio.sleep(following - monotonic())
            following = max(following, monotonic()) + 1 / rate
        yield
