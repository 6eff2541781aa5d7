"""The parent's few log lines, in the form of `telemetry/logging.py` without its libraries."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from worker.core.text import escaped
from worker.telemetry.colour import shows_colour

LEVELS = ("debug", "info", "warning", "error")
LOGGER = "worker.service.supervisor"

RESET, BOLD, DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = (f"\x1b[{code}m" for code in range(31, 37))
LEVEL_COLOURS = dict(zip(LEVELS, (GREEN, GREEN, YELLOW, RED), strict=True))


class Log:
    """Writes lines to stderr from a least level on."""

    def __init__(self, *, level: str, as_json: bool) -> None:
        self._least = LEVELS.index(level)
        self._as_json = as_json

    def info(self, event: str, **values: Any) -> None:
        """Tell what is as it should be."""
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Tell what somebody may want to look into."""
        self._write("warning", event, values)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        if LEVELS.index(level) < self._least:
            return
        if self._as_json:
            _write(_as_json(level, event, values))
        else:
            _write(_as_words(level, event, values, in_colour=shows_colour(sys.stderr)))


def tell(words: str) -> None:
    """Write to stderr at once, what a terminal would act on escaped; nobody need be listening."""
    _write("\n".join(map(escaped, words.split("\n"))))


def _write(text: str) -> None:
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        pass


def _as_json(level: str, event: str, values: dict[str, Any]) -> str:
    return json.dumps(
        {
            **values,
            "event": event,
            "level": level,
            "logger": LOGGER,
            "timestamp": _now(),
        }
    )


def _as_words(level: str, event: str, values: dict[str, Any], *, in_colour: bool) -> str:
    def paint(text: str, *styles: str) -> str:
        return f"{''.join(styles)}{text}{RESET}" if in_colour else text

    named = "".join(
        f" {paint(name, CYAN)}={paint(_shown(values[name]), MAGENTA)}" for name in sorted(values)
    )
    return (
        f"{paint(_now(), DIM)} [{paint(f'{level:<9}', LEVEL_COLOURS[level], BOLD)}] "
        f"{paint(f'{event:<30}', BOLD)} {paint('[')}{paint(LOGGER, BOLD, BLUE)}{paint(']')}{named}"
    )


def _shown(value: Any) -> str:
    """The value as structlog's console renderer has it."""
    if not isinstance(value, str):
        return repr(value)
    text = escaped(value)
    return repr(text) if set(text) & set(" \t=\r\n\"'") else text


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
