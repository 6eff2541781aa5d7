"""What went wrong, in one line that says what happened, why, and what mends it."""

from pathlib import Path

MISUSED = 2
UNREACHABLE = 4
"""Exit codes, the same as those of the `worker` command."""


class ServerError(Exception):
    """A server cannot be had; `log` is the file whose last lines may say why."""

    def __init__(self, words: str, *, log: Path | None = None, code: int = UNREACHABLE) -> None:
        super().__init__(words)
        self._lines = [words]
        self.code = code
        if log is not None and (end := tail(log)):
            self._lines += [f"The end of {log}:", *(f"    {line}" for line in end)]

    def add(self, line: str) -> None:
        """Say more, where more is known."""
        self._lines.append(line)

    def __str__(self) -> str:
        return "\n".join(self._lines)


def tail(log: Path, lines: int = 15) -> list[str]:
    """The last lines that are not empty; nothing if there is no such file."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
