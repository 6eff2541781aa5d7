"""What publisher and observer have written down so far, read while they go on writing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class LiveBook:
    """Which commands with an id have been confirmed, and which answered."""

    def __init__(self, directory: Path) -> None:
        self._publisher = _Tail(directory / "publisher.ndjson")
        self._events = [_Tail(directory / f"{name}.ndjson") for name in ("observer", "stream")]
        self.attempts = 0
        """Messages handed to the broker; the same command again counts again."""
        self._confirmed: set[str] = set()
        self._answered: set[str] = set()

    def unanswered(self) -> set[str]:
        """Commands that the broker has taken and that have no event yet."""
        self._read()
        return self._confirmed - self._answered

    def answered(self, ids: Iterable[str]) -> bool:
        """Whether all these have an event."""
        self._read()
        return self._answered.issuperset(ids)

    def in_words(self) -> str:
        """How many of each."""
        self._read()
        return f"{len(self._confirmed)} confirmed, {len(self._answered)} answered"

    def _read(self) -> None:
        for line in self._publisher.new():
            if line["kind"] == "confirm":
                self._confirmed.add(line["id"])
            else:
                self.attempts += 1
        for events in self._events:
            self._answered |= {line["command_id"] for line in events.new() if line["command_id"]}


class _Tail:
    """The lines of a file that have come since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                self._position += len(line)
                yield json.loads(line)
