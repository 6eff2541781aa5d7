"""Dead letters as lines of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.table import Table, TerminalColumn
from worker.cli.values import age, seconds

if TYPE_CHECKING:
    from worker.broker.client.dead_letter import StoredDeadLetter


class LetterTable:
    """Shows a letter a line; on a terminal the lines fit, unless they are to be `wide`."""

    _COLUMNS = (
        TerminalColumn("    #", full=5, fitted=5, importance=4),
        TerminalColumn("WHEN", full=19, fitted=4, importance=2),
        TerminalColumn("CODE", full=14, fitted=14, importance=5),
        TerminalColumn("TYPE", full=14, fitted=14, importance=3),
        TerminalColumn("COMMAND", full=36, fitted=36, importance=1),
    )

    def __init__(self, *, wide: bool) -> None:
        self._table = Table(self._COLUMNS, "WHY", wide=wide)

    def emit(self, letter: StoredDeadLetter) -> None:
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
