"""What is under test, and how another path plugs in.

The lab runs three processes for each point: the lab itself (the view, the look at the server),
the generator, and the process under test, which has the pool (`target_process.py`) and measures it
and its event loop the same way whatever is in it: a `TargetProcess`.

To add a path: write a `TargetProcess`, which makes its engine from `LabOrder.database_settings`,
name it in `TARGETS`, and write a `LoadTarget` (`generator.py`). Where it is the sender who sees the
end of a piece of work, as with events of a broker, it keeps the `WorkRecorder` and tells of it
under `"work"`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from pydantic import Field, SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.lab.durations import Model
from worker.lab.link import LabLink
from worker.lab.recorder import WorkRecorder
from worker.lab.scenario import Scenario
from worker.settings.settings import DatabaseSettings


class LabOrder(Model):
    """What the subject is to do; one line of JSON on its stdin."""

    scenario: Scenario
    url: str = Field(repr=False)
    """Of the database, password included: that is why it does not travel as an argument."""
    application_name: str
    """Of all connections of the pool: they are told apart from those of others by it."""
    namespace: str
    """The PostgreSQL schema of the run, and the first part of the name of its queues."""
    broker_url: str | None = Field(None, repr=False)
    base: dict[str, Any] = Field(default_factory=dict)
    """The worker's other settings, for the path `service`."""

    @property
    def database_settings(self) -> DatabaseSettings:
        """The pool under test, as settings of the worker."""
        members = {
            **self.base.get("database", {}),
            **self.scenario.pool.model_dump(),
            "url": SecretStr(self.url),
        }
        if self.scenario.database.through == "pgbouncer":
            members["transaction_pooler"] = True
        return DatabaseSettings.model_validate(members)

    @property
    def for_the_generator(self) -> dict[str, Any]:
        """What the generator must know beside when to send."""
        orders = {"load": self.scenario.load.model_dump(), "seed": self.scenario.seed}
        if self.scenario.path == "service":
            orders |= {
                "namespace": self.namespace,
                "broker": {**self.base.get("broker", {}), "url": self.broker_url},
            }
        return orders


class TargetProcess(Protocol):
    """What is under test: it has an engine, and does work until no more comes."""

    engine: AsyncEngine
    """Its pool is measured."""

    sees_ends: bool
    """Whether it tells the recorder what became of the work; else the generator does so."""

    async def start(self) -> None:
        """Become ready for work. Nothing is measured yet, and no load has been sent."""
        ...

    async def run(self, link: LabLink, recorder: WorkRecorder) -> None:
        """Take work until the link ends, then finish what is in hand, or give up on it."""
        ...

    async def stop(self) -> None:
        """Close everything; also after a failure, and also if never started."""
        ...


TARGETS = {
    "engine": "worker.lab.engine_target:EngineTarget",
    "service": "worker.lab.service_target:ServiceTarget",
}


def make_target(order: LabOrder) -> TargetProcess:
    """The target of the scenario's path."""
    module, _, name = TARGETS[order.scenario.path].partition(":")
    target: TargetProcess = getattr(import_module(module), name)(order)
    return target
