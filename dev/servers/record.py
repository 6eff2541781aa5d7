"""What is remembered of a private server between one command and the next."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Record:
    """Kept as `server.json` in the server's directory."""

    directory: str
    state: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    keep: bool = False
    """Wanted by `up`, so that the end of a `run` leaves it alone."""

    def save(self) -> None:
        """Replace the file in one step: a reader sees the old one or the new one, whole."""
        replace(Path(self.directory) / "server.json", json.dumps(asdict(self), indent=2) + "\n")


def load(directory: Path) -> Record:
    """The record of this very directory, or a fresh one.

    A copied checkout brings the record of the original along; following it would mean the
    original's ports and processes.
    """
    try:
        kept = json.loads((directory / "server.json").read_text(encoding="utf-8"))
        record = Record(**kept)
    except (OSError, ValueError, TypeError):
        return Record(str(directory))
    return record if record.directory == str(directory) else Record(str(directory))


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that nobody ever sees half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
