"""Lines of `.env` that are none: what stands there would stay at its default, in silence."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from worker.settings.typos import PREFIX


def broken_lines(path: Path) -> Iterator[str]:
    """A sentence for each line that cannot be read, or gives a setting no value.

    What stands there may be a password, and is not shown.
    """
    if not path.is_file():  # a pipe can be read once only
        return
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        yield f"{path}: cannot be read: {error.strerror}"
        return
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield f"{path}, line {line}: is not UTF-8"
        return
    for binding in parse_stream(io.StringIO(text, newline="")):
        where = f"{path}, line {_line_of(binding)}"
        if binding.error:
            is_quoted = any(quote in binding.original.string for quote in "'\"")
            hint = ". Has each quote its end?" if is_quoted else ""
            yield f"{where}: is not of the form NAME=value{hint}"
        elif binding.value is None and (binding.key or "").upper().startswith(PREFIX):
            yield f"{where}: {binding.key} has no value; write {binding.key}=…"


def _line_of(binding: Binding) -> int:
    """Where the line itself is: blank ones before it belong to the binding, too."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
