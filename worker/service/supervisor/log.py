"""The parent's few log lines, in the form of `telemetry/logging.py` without its libraries."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

LEVELS = ("debug", "info", "warning", "error")


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
        if LEVELS.index(level) >= self._least:
            line = _as_json if self._as_json else _as_words
            tell(line(level, event, values))


def tell(words: str) -> None:
    """Write to stderr at once, what a terminal would act on escaped; nobody need be listening."""
    lines = (
        line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
        for line in words.split("\n")
    )
    try:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        pass


def _as_json(level: str, event: str, values: dict[str, Any]) -> str:
    return json.dumps(
        {
            **values,
            "event": event,
            "level": level,
            "logger": "worker.service.supervisor",
            "timestamp": _now(),
        }
    )


def _as_words(level: str, event: str, values: dict[str, Any]) -> str:
    named = "".join(f" {name}={value}" for name, value in values.items())
    return f"{_now()} [{level:<9}] {event:<30} [worker.supervisor]{named}"


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
