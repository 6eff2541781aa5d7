"""What all faults have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import ClassVar

from dev.chaos.fleet import Worker
from dev.chaos.place import Place
from dev.chaos.schedule import Planned, Recipe


class NotInjected(Exception):
    """The fault did not come about, and why."""


class BrokenPromise(Exception):
    """The worker did not do what it promises, and what that is."""


class Fault(ABC):
    """Something that goes wrong from `begin` to `end`.

    The worker has to be well again within 10 s of the return of `end`. `exit_codes` are those with
    which workers may end meanwhile. A fault that `hides_order` has some events read elsewhere, so
    that a run whose order is checked goes without it; one that `needs_partitions` for the order is
    left out of those that have none, and one that `needs_nodes` of those that have one node.
    """

    name: ClassVar[str]
    recipe: ClassVar[Recipe]
    exit_codes: ClassVar[frozenset[int]] = frozenset()
    hides_order: ClassVar[bool] = False
    needs_partitions: ClassVar[bool] = False
    needs_nodes: ClassVar[bool] = False

    def __init__(self, place: Place, planned: Planned) -> None:
        self.place = place
        self.planned = planned
        self.random = Random(planned.choice)

    @property
    def worker(self) -> Worker:
        """The worker that it happens to, if it happens to one alone."""
        return self.place.workers[self.planned.worker % len(self.place.workers)]

    @abstractmethod
    async def begin(self) -> None:
        """Break it. Raises `NotInjected` where that was not possible."""

    @abstractmethod
    async def end(self) -> None:
        """Mend it; also what was only half broken."""


class Blow(Fault):
    """A fault that is over as soon as it has happened."""

    async def end(self) -> None:
        """Nothing is to be mended: the worker, or who runs it, does that."""


async def until(
    condition: Callable[[], bool],
    *,
    within: float,
    what: str,
    error: type[Exception] = NotInjected,
) -> None:
    """Wait for it; raise the error where it does not come."""
    for _ in range(round(within / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise error(f"{what} within {within:g} s")
