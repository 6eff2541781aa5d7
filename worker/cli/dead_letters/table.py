"""Dead letters as lines of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.table import Column, Table
from worker.cli.values import age, seconds

if TYPE_CHECKING:
    from worker.broker.client.dead_letter import Letter


class LetterTable:
    """Shows a letter a line; on a terminal the lines fit, unless they are to be `wide`."""

    _COLUMNS = (
        Column("    #", full=5, fitted=5, importance=4),
        Column("WHEN", full=19, fitted=4, importance=2),
        Column("CODE", full=14, fitted=14, importance=5),
        Column("TYPE", full=14, fitted=14, importance=3),
        Column("COMMAND", full=36, fitted=36, importance=1),
    )

    def __init__(self, *, wide: bool) -> None:
        self._table = Table(self._COLUMNS, "WHY", wide=wide)

    def emit(self, letter: Letter) -> None:
        """Write the letter on one line."""
        time = letter.time or "-"
        cells = (
            f"{letter.number:>5}",
            age(time) if self._table.fits else seconds(time),
            letter.code,
            letter.command_type or "-",
            letter.command_id or "-",
            letter.detail,
        )
        self._table.emit(cells)
