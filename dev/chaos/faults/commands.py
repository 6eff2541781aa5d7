"""Commands that are trouble themselves."""

from __future__ import annotations

from dev.chaos.entities import MISBEHAVIOURS, POISONED
from dev.chaos.faults.fault import Blow, BrokenPromise, until
from dev.chaos.schedule import Recipe


class Duplicates(Blow):
    """Commands published twenty times each, so that several workers have them at once."""

    name = "duplicates"
    recipe = Recipe((0, 0), weight=2)

    async def begin(self) -> None:
        await self.place.send_probes("update", count=8, copies=20)


class Poison(Blow):
    """A command that ends every process that carries it out, among innocent ones.

    Without partitions RabbitMQ 3.10 keeps no order among them: who dies again and again returns
    some a second time, behind those that it has returned once.
    """

    name = "poison"
    needs_partitions = True
    recipe = Recipe((0, 0))
    exit_codes = frozenset({POISONED})

    async def begin(self) -> None:
        await self.place.publisher.burst(100)
        ids = await self.place.send_probes("die", count=1)
        await self.place.publisher.burst(100)
        await until(
            lambda: self.place.book.answered(ids),
            within=180,
            what="the poison was not convicted",
            error=BrokenPromise,
        )


class Stumbles(Blow):
    """Handlers that fail twice, after they have written, and succeed then."""

    name = "transient-failures"
    recipe = Recipe((0, 0))

    async def begin(self) -> None:
        ids = await self.place.send_probes("stumble", count=6, data={"times": 2})
        await until(
            lambda: self.place.book.answered(ids),
            within=60,
            what="not all of them succeeded",
            error=BrokenPromise,
        )


class Hopeless(Blow):
    """Handlers that always fail: dead letters after the last attempt."""

    name = "hopeless-failures"
    recipe = Recipe((0, 0))

    async def begin(self) -> None:
        await self.place.send_probes("stumble", count=3, data={"times": 1_000})


class OddHandlers(Blow):
    """Handlers that raise, return or end what they must not, or that never return."""

    name = "odd-handlers"
    recipe = Recipe((0, 0))

    async def begin(self) -> None:
        ids = [
            id_
            for how in MISBEHAVIOURS
            for id_ in await self.place.send_probes("misbehave", count=1, data={"how": how})
        ]
        await until(
            lambda: self.place.book.answered(ids),
            within=120,
            what="not all of them were answered",
            error=BrokenPromise,
        )
