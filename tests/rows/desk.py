"""Carries out commands about entities of a test: together, and one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any, Self

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.harness import Nowhere
from tests.support.processors import processor_on
from worker.codec.codec import Codec
from worker.core.messages import Delivery, Job, Outcome, Retry
from worker.core.models import NAMING, Row
from worker.core.registry import Entity, Registry


class Odd(Row):
    """Rows of tests: in a metadata that no migration is compared with."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING)


class Desk:
    """The processor of some entities, on a database that has their tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._ids = count()

    async def open(self, *entities: Entity, sql: Sequence[str] = ()) -> Self:
        """Make the entities' tables anew, and run statements beside."""
        self.entities = entities
        registry = Registry(entities)
        tables = [entity.table for entity in entities]
        async with self.engine.begin() as connection:
            await connection.run_sync(tables[0].metadata.drop_all, tables)
            await connection.run_sync(tables[0].metadata.create_all, tables)
            await connection.execute(text("TRUNCATE command_ledger"))
        await self.sql(*sql)
        self._codec = Codec(registry)
        self._processor = processor_on(self.engine, registry, self._codec)
        return self

    async def together(self, *commands: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry them out as one group; their events."""
        outcomes = await self.outcomes(*commands)
        return [json.loads(outcome.answer.body) for outcome in outcomes]  # type: ignore[union-attr]

    async def one_by_one(self, *commands: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry them out, each in a group of its own; their events."""
        return [event for command in commands for event in await self.together(command)]

    async def outcomes(self, *commands: dict[str, Any]) -> list[Outcome]:
        """What has become of a group."""
        jobs = []
        for command in commands:
            body = json.dumps({"id": f"id-{next(self._ids)}"} | command).encode()
            jobs.append(Job(self._codec.decode(Delivery(body, 0, Nowhere()))))
        outcomes = await self._processor.process(jobs)
        assert not any(isinstance(outcome, Retry) for outcome in outcomes), outcomes
        return outcomes

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        """What a query finds."""
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(text(statement))).mappings()]

    async def sql(self, *statements: str) -> None:
        """Run statements of somebody else."""
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)


def create(entity: str, **data: Any) -> dict[str, Any]:
    return {"type": f"{entity}.create", "data": data}


def update(entity: str, target: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"type": f"{entity}.update", "target": target, "data": data}


def delete(entity: str, **target: Any) -> dict[str, Any]:
    return {"type": f"{entity}.delete", "target": target}


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].partition(".")[2] for event in events]


def errors(event: dict[str, Any]) -> tuple[str, str]:
    """The code of a refusal, and where it points."""
    (error,) = event["data"]["errors"]
    return error["code"], error["pointer"]
