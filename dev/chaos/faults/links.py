"""Links between a worker and its servers."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from dev.chaos.brokers import Ways
from dev.chaos.faults.fault import Blow, Fault, NotInjected
from dev.chaos.schedule import Recipe
from worker.testing.proxy import COMMIT, Proxy


class _Link(Fault):
    to: ClassVar[str]

    @property
    def link(self) -> Ways | Proxy:
        links = self.place.links[self.worker.name]
        return links.broker if self.to == "broker" else links.database

    async def end(self) -> None:
        self.link.heal()


class FrozenBrokerLink(_Link):
    """Nothing flows, and nobody is told; then all of it does."""

    name, to = "broker-link-frozen", "broker"
    recipe = Recipe((2, 9))

    async def begin(self) -> None:
        self.link.freeze()


class FrozenDatabaseLink(FrozenBrokerLink):
    name, to = "database-link-frozen", "database"


class SwallowingBrokerLink(_Link):
    """A black hole: what flows is lost."""

    name, to = "broker-link-black-hole", "broker"
    recipe = Recipe((2, 9))

    async def begin(self) -> None:
        self.link.swallow()


class SwallowingDatabaseLink(SwallowingBrokerLink):
    name, to = "database-link-black-hole", "database"


class LosingBrokerLink(_Link):
    """What the worker sends is lost, acknowledgements and events; what it is sent arrives."""

    name, to = "broker-link-loss", "broker"
    recipe = Recipe((1, 4))

    async def begin(self) -> None:
        self.link.swallow(way="to_server")


class SlowLinks(_Link):
    """Latency with jitter on both ways."""

    name, to = "latency", "broker"
    recipe = Recipe((3, 6))

    async def begin(self) -> None:
        for link in self._both():
            link.slow(latency_seconds=0.05, jitter_seconds=0.1)

    async def end(self) -> None:
        for link in self._both():
            link.heal()

    def _both(self) -> tuple[Ways, Proxy]:
        links = self.place.links[self.worker.name]
        return links.broker, links.database


class ResetBrokerLink(Blow, _Link):
    """All connections are reset."""

    name, to = "broker-link-reset", "broker"
    recipe = Recipe((0, 0), weight=2)

    async def begin(self) -> None:
        await self.place.publisher.burst(100)
        self.link.reset()


class ResetDatabaseLink(ResetBrokerLink):
    name, to = "database-link-reset", "database"


class CutBeforeCommit(_Link):
    """The link is cut by a COMMIT, which the server does not get."""

    name, to = "cut-before-commit", "database"
    recipe = Recipe((0, 0), weight=2)
    arrives: ClassVar[bool] = False

    async def begin(self) -> None:
        cut = self.place.links[self.worker.name].database.cut_when(COMMIT, deliver=self.arrives)
        if not await asyncio.to_thread(cut.wait, 8):
            raise NotInjected("no COMMIT came by within 8 s")


class CutAfterCommit(CutBeforeCommit):
    """The link is cut by a COMMIT, which the server gets, and whose reply is lost."""

    name = "cut-after-commit"
    arrives = True
