"""Which dead letters are meant."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.cli.terminal import Misused
from worker.core.errors import WorkerError

if TYPE_CHECKING:
    from worker.broker.client.dead_letter import StoredDeadLetter
    from worker.broker.client.dead_letter_queue import DeadLetters
    from worker.settings.settings import Settings


class NoSuchLetter(WorkerError):
    """A dead letter that was asked for is not there; exit code 1."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Command ids, or numbers from `list`; or else everything; at most `limit` letters."""

    selectors: tuple[str, ...] = ()
    everything: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.everything == bool(self.selectors):
            raise Misused(
                "give either ids, or numbers from `worker dead-letters list`, or else --all"
            )


@asynccontextmanager
async def open_chosen(
    settings: Settings, choice: Selection
) -> AsyncIterator[tuple[DeadLetters, AsyncGenerator[StoredDeadLetter]]]:
    """The dead letters, held open, and those that are meant.

    Their iterator raises `NoSuchLetter`, at its end, for selectors that fit none.
    """
    from worker.broker.client.dead_letter_queue import open_dead_letters
    from worker.broker.topology import Topology

    topology = Topology.of(settings)
    async with open_dead_letters(settings.broker, topology) as letters:
        if choice.everything:
            chosen = letters.read(choice.limit or letters.count)
        else:
            chosen = _chosen(letters, choice)
        async with aclosing(chosen):
            yield letters, chosen


async def _chosen(letters: DeadLetters, choice: Selection) -> AsyncGenerator[StoredDeadLetter]:
    from worker.broker.client.dead_letter_queue import MOST_READ

    numbers = {int(text) for text in choice.selectors if _is_number(text)}
    ids = {text.removeprefix("id=") for text in choice.selectors if not _is_number(text)}
    missing: set[int | str] = {*numbers, *ids}
    found = 0
    async for letter in letters.read(MOST_READ if ids else max(numbers)):
        if letter.number not in numbers and letter.command_id not in ids:
            continue
        missing -= {letter.number, letter.command_id or ""}
        found += 1
        yield letter
        if found == choice.limit:
            return
    if missing:
        names = ", ".join(sorted(map(str, missing)))
        raise NoSuchLetter(
            f"there is no dead letter with this id or number: {names} "
            f"(looked at {min(letters.count, MOST_READ):,})"
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
