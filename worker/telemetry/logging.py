"""Logs: one line an event, JSON for machines, coloured for people.

Values are rendered, never interpolated: a hostile id cannot forge a line or move a cursor. And they
are cut: nobody fills the log by what he sends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import structlog

from worker.core.text import escaped
from worker.telemetry.colour import shows_colour

MAX_CHARACTERS = 1_000
"""Of a value, and of a line of a traceback."""

MAX_LINES = 200
"""Of a traceback."""


def configure_logging(*, level: str = "info", form: str = "auto") -> None:
    """Send all logs, the libraries' too, to stderr.

    `form` is `json`, `console`, or `auto`: console on a terminal, else JSON.
    """
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Any] = (
        [structlog.processors.JSONRenderer()] if as_json else [_escape_control, _console()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level.upper()),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _cut,
                *rendering,
            ],
        )
    )
    # What a library reports of work that was told to end is no error, and its traceback is long.
    handler.addFilter(lambda record: not _was_told_to_end(record))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # aiormq logs every lost connection with a traceback; the worker says the same in one line.
    for name in ("aiormq", "aio_pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # What SQLAlchemy tells of a pool is named after the pool's class.
    for name in ("aiohttp.access", "alembic", "worker.database.pool.pool.FairPool"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _was_told_to_end(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ConnectionError):
        # asyncpg's, of an attempt to connect that was given up; nobody is left to be told.
        return record.name == "asyncio" and str(error) == "unexpected connection_lost() call"
    return isinstance(error, asyncio.CancelledError)


def _console() -> structlog.dev.ConsoleRenderer:
    # A plain traceback: the pretty one prints the values of variables, secrets among them.
    return structlog.dev.ConsoleRenderer(
        colors=shows_colour(sys.stderr), exception_formatter=structlog.dev.plain_traceback
    )


def _cut(_logger: Any, _name: str, event: Any) -> Any:
    """Of strings that are too long the middle is left out, and that of a traceback's lines."""
    for key, value in event.items():
        if not isinstance(value, str) or len(value) <= MAX_CHARACTERS:
            continue
        if key == "exception":
            lines = value.split("\n")
            if (more := len(lines) - MAX_LINES) > 0:
                half = MAX_LINES // 2
                lines = [*lines[:half], f"… {more:,} lines …", *lines[-half:]]
            event[key] = "\n".join(map(_shortened, lines))
        else:
            event[key] = _shortened(value)
    return event


def _shortened(text: str) -> str:
    more, half = len(text) - MAX_CHARACTERS, MAX_CHARACTERS // 2
    return f"{text[:half]} … {more:,} characters … {text[-half:]}" if more > 0 else text


def _escape_control(_logger: Any, _name: str, event: Any) -> Any:
    """Strings with control characters are shown escaped; a traceback keeps its lines.

    These are set off: the text of an exception may be a stranger's, and look like a line of ours.
    """
    for key, value in event.items():
        if not isinstance(value, str):
            continue
        if key == "exception":
            event[key] = "\n".join(f"  | {escaped(line)}" for line in value.split("\n"))
        else:
            event[key] = escaped(value)
    return event
