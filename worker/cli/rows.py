"""The rows of an answer: a table on a terminal, else JSON lines."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from worker.cli.table import GAP, cell
from worker.cli.terminal import as_json, coloured, emit, emit_json, printable

WIDEST = 40
"""Characters of a column on a terminal."""


class RowTable:
    """Shows pages, one after the other; the titles stand above the first."""

    def __init__(self, *, as_json: bool) -> None:
        self._in_lines = as_json or not sys.stdout.isatty()
        self._is_begun = False

    def show(self, answer: dict[str, Any]) -> None:
        """Write what one answer holds: rows, groups, the figures of all, or one row."""
        rows = answer.get("items", answer.get("groups"))
        if rows is None:
            rows = [answer.get("aggregate", answer)]
        if self._in_lines:
            for row in rows:
                emit_json(row)
        elif rows:
            self._table([_flat(row) for row in rows])

    def _table(self, rows: list[dict[str, str]]) -> None:
        names = list(rows[0])
        widths = [min(WIDEST, max(len(name), *(len(row[name]) for row in rows))) for name in names]
        width = shutil.get_terminal_size().columns
        if not self._is_begun:
            emit(coloured(_line(names, widths, width), bold=True))
        self._is_begun = True
        for row in rows:
            emit(_line(list(row.values()), widths, width))


def _line(cells: list[str], widths: list[int], width: int) -> str:
    fitted = [cell(text, room) for text, room in zip(cells, widths, strict=True)]
    return cell(GAP.join(fitted), width).rstrip()


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Each value as one printable text; those of an object under its name and theirs."""
    found: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else as_json(value)
            found[f"{prefix}{name}"] = printable(text)
    return found
