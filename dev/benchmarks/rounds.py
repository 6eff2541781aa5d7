"""All contenders in turn, several rounds, each round in another order, the reference in between."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from dev.benchmarks.arena import Place
from dev.benchmarks.contender import Contender, Queue
from dev.benchmarks.drain import Run, drain
from dev.benchmarks.figures import NoRate
from dev.benchmarks.pgbench import press
from dev.benchmarks.process import ContenderFailed


@dataclass(frozen=True)
class Outcome:
    """One contender's turn in one round: a run, or why there is none."""

    round: int
    contender: str
    run: Run | None = None
    failure: str | None = None

    @property
    def trouble(self) -> str | None:
        """What kept it from being a run in which all was done once."""
        if self.run is None:
            return self.failure
        return None if self.run.tally.clean else str(self.run.tally)


REFERENCE = "worker"
"""The contender that every other is compared with, in the same minute."""
BETWEEN = 3
"""How many others run from one run of the reference to the next."""


def order(contenders: Sequence[Contender], *, rounds: int, seed: int) -> list[list[Contender]]:
    """Who comes after whom in each round.

    Shuffled, so that none always has the quiet minute or follows the same predecessor, whose
    checkpoints and garbage it would inherit. The reference, if it takes part, runs before and after
    every few others: the machine's speed may change within a round, too.
    """
    random = Random(seed)
    reference = [each for each in contenders if each.name == REFERENCE]
    others = [each for each in contenders if each.name != REFERENCE]
    found = []
    for _ in range(rounds):
        shuffled = random.sample(others, len(others))
        turn = [*reference]
        for start in range(0, len(shuffled), BETWEEN):
            turn += [*shuffled[start : start + BETWEEN], *reference]
        found.append(turn)
    return found


async def play(
    rounds: Sequence[Sequence[Contender]],
    place: Place,
    *,
    commands: int,
    seed: int,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Everybody's turns in each round, on things of its own; `tell` hears of each at once.

    Args:
        commands: how many a fast contender gets; a slow one gets its share of them.
        seed: of the commands; those of one round are the same for all.
    """
    outcomes = []
    for number, contenders in enumerate(rounds, start=1):
        for contender in contenders:
            outcome = await _turn(number, contender, place, commands, seed + number)
            outcomes.append(outcome)
            tell(outcome)
    return outcomes


async def _turn(
    number: int, contender: Contender, place: Place, commands: int, seed: int
) -> Outcome:
    count = max(20, round(commands * contender.share))
    try:
        if contender.queue is Queue.NONE:
            run = await press(contender, place, commands=count)
        else:
            run = await drain(contender, place, commands=count, seed=seed)
    except (ContenderFailed, NoRate) as error:
        return Outcome(number, contender.name, failure=str(error))
    return Outcome(number, contender.name, run=run)


def unavailable(contender: Contender) -> str | None:
    """Why the contender cannot take part here, if it cannot; looked at before anything starts."""
    program = contender.argv[0]
    if shutil.which(program):
        return None
    where = "it comes with the PostgreSQL server" if program == "pgbench" else "run `make bench`"
    return f"there is no {program}: {where}"
