"""`worker dead-letters drop`: delete letters for good, all of them only where somebody agrees."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from worker.cli.dead_letters import summary_of
from worker.cli.dead_letters.selection import open_chosen
from worker.cli.prepare import complete
from worker.cli.terminal import Misused, Report, agrees, counted, say

if TYPE_CHECKING:
    from worker.cli.dead_letters.selection import Selection
    from worker.settings.settings import Settings


def drop(settings: Settings, choice: Selection, *, dry: bool, ask: bool) -> None:
    """Delete the chosen letters; before all of them, `ask`. Ends with 1 where that was denied."""
    if choice.everything and ask and not dry:
        if not sys.stdin.isatty():
            raise Misused(
                "--all deletes every letter for good, and nobody is here to be asked: add --yes"
            )
        count = complete(_count(settings))
        number = min(count, choice.limit or count)
        if number == 0:
            say("there are no dead letters")
            return
        if not agrees(f"Delete {_which(number, count)} for good?"):
            say("nothing was deleted")
            raise typer.Exit(1)
        # Those that come meanwhile were not asked for; they are behind all others.
        choice = replace(choice, limit=number)
    complete(_drop(settings, choice, dry))


async def _count(settings: Settings) -> int:
    from worker.broker.client.dead_letter_queue import open_dead_letters
    from worker.broker.topology import Topology

    async with open_dead_letters(settings.broker, Topology.of(settings)) as letters:
        return letters.count


def _which(number: int, count: int) -> str:
    if number < count:
        return f"the oldest {number:,} of {count:,} dead letters"
    return f"all {count:,} dead letters" if count > 1 else "the one dead letter"


async def _drop(settings: Settings, choice: Selection, dry: bool) -> None:
    count, report = 0, Report()
    async with open_chosen(settings, choice) as (letters, chosen):
        async for letter in chosen:
            if not dry:
                await letters.settle(letter)
            count += 1
            report.tell(summary_of(letter) | {"action": "would drop" if dry else "dropped"})
    say(f"{counted(count, 'letter')} {'would be ' if dry else ''}dropped")
