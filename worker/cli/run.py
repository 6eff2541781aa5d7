"""`worker run`: consume until stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import typer


def run() -> None:
    """Carry out commands until stopped.

    The first SIGTERM or Ctrl-C stops in order: nothing more is taken, what is in hand is finished
    within WORKER_SHUTDOWN_SECONDS, the rest goes back to the queue. A second one stops at once.
    While broker or database is away it waits, says so, and resumes by itself.

    \b
    Examples:
      worker run
      WORKER_LANES=16 WORKER_LOG_FORMAT=json worker run
    """
    from worker.service import run_until_signalled
    from worker.settings import load_settings
    from worker.telemetry.logging import configure_logging

    settings = load_settings()
    configure_logging(level=settings.log_level, form=settings.log_format)
    try:
        _loop().run(run_until_signalled(settings))
    except asyncio.CancelledError:
        raise typer.Exit(130) from None  # the second signal


def _loop() -> Any:
    """The module whose `run` is the fastest at hand."""
    try:
        import uvloop
    except ImportError:  # Windows, PyPy
        return asyncio
    return uvloop
