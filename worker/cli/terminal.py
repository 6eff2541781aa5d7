"""What goes to stdout and stderr: lines for programs, words for people.

What others have sent is shown, never obeyed: control characters, escape sequences and characters
that reorder or hide text are written as escapes, and nothing is taken for markup.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from worker.core.errors import WorkerError
from worker.telemetry.colour import shows_colour


class Misused(WorkerError):
    """The command line was not used as it must be."""

    exit_code = 2


class OutputClosed(Exception):
    """Nobody reads stdout any more, as in `worker watch | head`."""


def printable(text: str) -> str:
    """The text on one line, with all that a terminal would act on, reorder or hide escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def json_safe(text: str) -> str:
    """A JSON text on one line that means the same and holds nothing a terminal would act on."""
    # Between values JSON may have line breaks; within strings it never has them unescaped.
    text = text.translate(_SPACES)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


_SPACES = str.maketrans("\t\n\r", "   ")


def as_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON; what JSON has no form for, such as a date, as text."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def emit(line: str) -> None:
    """Write one line to stdout, at once and in UTF-8, whatever the locale.

    Raises `OutputClosed` when nobody reads it any more.
    """
    try:
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosed from None


def emit_json(value: Any) -> None:
    """Write a value to stdout as one line of JSON."""
    emit(json_safe(as_json(value)))


class Report:
    """Writes a line for each thing done; done is done, whether anybody reads of it or not.

    So `worker dead-letters redrive --all | head -1` sends all of them back.
    """

    def __init__(self) -> None:
        self._is_read = True

    def tell(self, value: Any) -> None:
        """Write a value to stdout as one line of JSON, while somebody reads it."""
        self.write(json_safe(as_json(value)))

    def write(self, line: str) -> None:
        """Write a line to stdout, while somebody reads it."""
        if self._is_read:
            try:
                emit(line)
            except OutputClosed:
                self._is_read = False


def emit_document(value: Any, *, as_line: bool = False) -> None:
    """Write a value to stdout as JSON: on a terminal indented, unless it is to be one line."""
    if as_line or not sys.stdout.isatty():
        emit_json(value)
        return
    for line in as_json(value, indent=2).split("\n"):
        emit(json_safe(line))


def say(words: str) -> None:
    """Tell people something, on stderr."""
    try:
        for line in words.split("\n"):
            sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # nobody listens


def agrees(question: str) -> bool:
    """Ask a yes-or-no question on stderr; anything but yes is no."""
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def counted(number: int, thing: str) -> str:
    """A number and a noun, as in `1 command` and `2,000 commands`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def coloured(text: str, colour: str | None = None, *, bold: bool = False) -> str:
    """The text in a colour if stdout is a terminal that may show it."""
    if not (colour or bold) or not shows_colour(sys.stdout):
        return text
    import typer

    return typer.style(text, fg=colour, bold=bold or None)


def columns(*cells: tuple[str, int]) -> str:
    """Cells made printable and filled up to their widths, two spaces between them."""
    return "  ".join(printable(text).ljust(width) for text, width in cells).rstrip()
