"""What became of published commands, as it is shown: words on a terminal, else JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from worker.cli.events import members_of, problem_of, words_of
from worker.cli.terminal import Report, json_safe, printable
from worker.core.errors import CommandRefused


class Published:
    """Shows each command that was confirmed or answered; JSON on a terminal, too, if so wished."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.answered = 0
        self.refused = 0
        self._in_words = sys.stdout.isatty() and not as_json
        self._report = Report()
        self._last_problem: dict[str, Any] = {}

    def show_confirmed(self, command: Mapping[str, Any]) -> None:
        """The broker has stored the command."""
        id_, type_ = command["id"], command["type"]
        if self._in_words:
            self._report.write(printable(f"{type_}  command {id_}  published"))
        else:
            self._report.tell({"id": id_, "type": type_})

    def show_answer(self, body: bytes) -> None:
        """The event that answers the command has come."""
        event = members_of(body) or {}
        problem = problem_of(event)
        self.answered += 1
        if problem is not None:
            self.refused += 1
            self._last_problem = problem
        self._report.write(words_of(event) if self._in_words else json_safe(body.decode()))

    def raise_if_refused(self) -> None:
        """Raise `CommandRefused` if any was; of a single one it says why, unless words did so."""
        if not self.refused:
            return
        if self.answered > 1:
            raise CommandRefused(f"{self.refused:,} of {self.answered:,} commands were refused")
        if self._in_words:
            raise CommandRefused("the command was refused")
        problem = self._last_problem
        raise CommandRefused(f"{problem.get('code')}: {problem.get('detail')}")
