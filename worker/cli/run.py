"""`worker run`: consume until stopped, in one process or several."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.terminal import Misused
from worker.core.errors import WorkerError

if TYPE_CHECKING:
    from worker.settings.settings import Settings

COLLECT_AFTER_OBJECTS = 10_000


def run(
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Worker processes under one parent, which starts again one that ends. Each has "
            "WORKER_LANES transactions and a pool of its own. Commands with the same key keep "
            "their order within one process only: leave it at 1 where their order matters.",
        ),
    ] = 1,
    child: Annotated[str | None, typer.Option(hidden=True, metavar="NUMBER:LINE")] = None,
) -> None:
    """Carry out commands until stopped.

    The first SIGTERM or Ctrl-C stops in order: nothing more is taken, what is in hand is finished
    within WORKER_SHUTDOWN_SECONDS, the rest goes back to the queue. A second one stops at once.
    While broker or database is away it waits, says so, and resumes by itself.

    With several processes /livez and /readyz are those of all: ready when each of them is.

    \b
    Examples:
      worker run
      worker run --processes 4
      WORKER_LANES=16 WORKER_LOG_FORMAT=json worker run
    """
    from worker.settings.settings import load_settings

    if child is not None:
        number, line = map(int, child.split(":"))
        _run_as_child(number, line, processes)
    elif processes > 1:
        _supervise(load_settings(), processes)
    else:
        from worker.service.service import run_until_signalled

        settings = _with_logs(load_settings())
        _run(run_until_signalled(settings))


def _supervise(settings: Settings, processes: int) -> None:
    if sys.platform == "win32":
        raise Misused("--processes needs a POSIX system; start that many workers instead")
    from worker.service.supervisor.plan import Plan, become_supervisor

    become_supervisor(
        Plan(
            processes=processes,
            health_host=settings.health.host,
            health_port=settings.health.port,
            shutdown_seconds=settings.shutdown_seconds,
            log_level=settings.log_level,
            log_as_json=settings.log_format == "json"
            or (settings.log_format == "auto" and not sys.stderr.isatty()),
        )
    )


def _run_as_child(number: int, line_number: int, processes: int) -> None:
    from worker.service.supervised import open_line, run_on_line, tell_error
    from worker.settings.settings import load_settings

    with open_line(line_number) as line:
        try:
            settings = _with_logs(load_settings(), process=number)
            # The first looks for all whether the server has room for their pools.
            _run(run_on_line(settings, line, processes=processes if number == 1 else 0))
        except WorkerError as error:
            if not tell_error(line, error):
                raise
            raise typer.Exit(error.exit_code) from None


def _with_logs(settings: Settings, **always: Any) -> Settings:
    """The settings, with logs as they say; `always` stands in every line."""
    from structlog.contextvars import bind_contextvars

    from worker.telemetry.logging import configure_logging

    configure_logging(level=settings.log_level, form=settings.log_format)
    bind_contextvars(**always)
    return settings


def _run(service: Coroutine[Any, Any, None]) -> None:
    """Run it on the fastest loop at hand."""
    _collect_seldom()
    loop: Any = asyncio
    with suppress(ImportError):  # Windows, PyPy
        import uvloop as loop
    try:
        loop.run(service)
    except asyncio.CancelledError:
        raise typer.Exit(130) from None  # the second signal


def _collect_seldom() -> None:
    """Have the garbage collector come when there may be garbage.

    By default it looks at what is in hand after every 700 new objects: some forty commands, none
    of them done with by then. That took a tenth of the CPU; and what was imported never goes.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 10)
