"""Lines in columns: cut to the width of a terminal, or in full.

On a terminal that is too narrow columns are left out, the least telling first, and what is too long
for its column ends in `…`. In a pipe, or where it is asked for, nothing is.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from worker.cli.terminal import coloured, emit, printable

GAP = "  "
LEAST_TEXT = 20
"""Characters that the last column should have; others are left out for it."""


@dataclass(frozen=True, slots=True)
class TerminalColumn:
    """One column but the last, which takes what is left."""

    title: str
    full: int
    """Width in full, to which shorter text is filled up; longer text is wider."""
    fitted: int
    """Width on a terminal; longer text is cut."""
    importance: int
    """The column with the least is left out first."""


class Table:
    """Columns, of which `last` is as long as it may be; in full in a pipe, and if `wide`."""

    def __init__(self, columns: Sequence[TerminalColumn], last: str, *, wide: bool) -> None:
        self.fits = sys.stdout.isatty() and not wide
        """Whether lines are cut to the terminal's width."""
        self._columns = columns
        self._last = last
        self._is_begun = False

    def emit(self, cells: Sequence[str], *, colour: str | None = None) -> None:
        """Write a line to stdout, on a terminal the titles before the first one."""
        if not self._is_begun and sys.stdout.isatty():
            titles = [*(column.title for column in self._columns), self._last]
            emit(coloured(self.line(titles), bold=True))
        self._is_begun = True
        emit(coloured(self.line(cells), colour))

    def line(self, cells: Sequence[str]) -> str:
        """A cell for each column, in one printable line."""
        texts = [printable(cell) for cell in cells]
        if not self.fits:
            padded = [text.ljust(it.full) for text, it in zip(texts, self._columns, strict=False)]
            return GAP.join([*padded, texts[-1]]).rstrip()
        # Asked for each line: a terminal may be made narrower.
        width = shutil.get_terminal_size().columns
        shown = fitting(self._columns, width)
        pairs = zip(texts, self._columns, strict=False)
        cut = [cell(text, column.fitted) for text, column in pairs if column in shown]
        rest = width - sum(column.fitted + len(GAP) for column in shown)
        return cell(GAP.join([*cut, cell(texts[-1], max(rest, 1))]), width).rstrip()


def fitting(columns: Sequence[TerminalColumn], width: int) -> list[TerminalColumn]:
    """The columns that leave the last one room enough, but at least the most important one."""
    shown = list(columns)
    while len(shown) > 1 and _taken(shown) + LEAST_TEXT > width:
        shown.remove(min(shown, key=lambda column: column.importance))
    return shown


def cell(text: str, width: int) -> str:
    """The text in so many places of a terminal, where some characters take two or none."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…"


def _taken(columns: Sequence[TerminalColumn]) -> int:
    return sum(column.fitted + len(GAP) for column in columns)
