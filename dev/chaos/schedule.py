"""Which fault when, as a pure function of the seed: the same seed breaks the same things again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

FAULTS_PER_MINUTE = 7


@dataclass(frozen=True)
class Recipe:
    """What a schedule must know of a kind of fault.

    `hold_seconds` bounds how long it lasts; `weight` is how often it comes in a round of all kinds.
    """

    hold_seconds: tuple[float, float]
    weight: int = 1


@dataclass(frozen=True)
class Planned:
    """One fault of a schedule. `worker` is a number that the rig takes modulo its workers."""

    number: int
    name: str
    pause_seconds: float
    hold_seconds: float
    worker: int
    choice: int
    """Whatever else the fault has to choose, it chooses by this."""

    def __str__(self) -> str:
        return (
            f"{self.number:4d}  after {self.pause_seconds:3.1f} s  {self.name:24s}"
            f" for {self.hold_seconds:4.1f} s  worker {self.worker}"
        )


def schedule(
    seed: int, minutes: float, recipes: Mapping[str, Recipe], *, count: int | None = None
) -> Sequence[Planned]:
    """The faults of a run, one after the other: seven a minute, or `count` of them.

    Every kind comes as often as its weight says before any comes again, so that a long run has all
    of them and a short one as many different ones as it has room for.
    """
    chosen = Random(seed)
    names = _in_rounds(recipes, chosen)
    wanted = round(FAULTS_PER_MINUTE * minutes) if count is None else count
    return [
        Planned(
            number=number,
            name=(name := next(names)),
            pause_seconds=round(chosen.uniform(0.3, 1.5), 1),
            hold_seconds=round(chosen.uniform(*recipes[name].hold_seconds), 1),
            worker=chosen.randrange(12),
            choice=chosen.randrange(2**32),
        )
        for number in range(1, wanted + 1)
    ]


def _in_rounds(recipes: Mapping[str, Recipe], chosen: Random) -> Iterator[str]:
    while True:
        all_of_them = [name for name in sorted(recipes) for _ in range(recipes[name].weight)]
        chosen.shuffle(all_of_them)
        yield from all_of_them
