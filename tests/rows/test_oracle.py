"""The same commands in groups, one by one, and by a plain ORM session: the same comes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic_core import to_json
from sqlalchemy import JSON, func, null, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.rows.desk import Desk
from tests.rows.invented import Command, Shape, entities_of, plans, triggers_of
from worker.core.messages import utc_now
from worker.core.payloads import values_of
from worker.core.registry import Entity

Plan = tuple[tuple[Shape, ...], list[list[Command]]]


class Way:
    """One way to carry the commands out, and what can be seen of it."""

    def __init__(self, desk: Desk, entities: Sequence[Entity]) -> None:
        self.desk = desk
        self.entities = {entity.name: entity for entity in entities}
        self.made: dict[str, list[int]] = {name: [] for name in self.entities}
        self.events: list[dict[str, Any]] = []

    async def carry_out(self, groups: Sequence[Sequence[Command]]) -> None:
        for group in groups:
            # Before any is carried out: a group cannot name what it is yet to make.
            for event in await self.group([self._with_real_ids(command) for command in group]):
                entity, _, happened = event["type"].partition(".")
                if happened == "created":
                    self.made[entity].append(event["data"]["id"])
                self.events.append(event)

    async def group(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _with_real_ids(self, command: Command) -> Command:
        name = command["type"].partition(".")[0]
        command = json.loads(json.dumps(command))
        if "id" in command.get("target", {}):
            command["target"]["id"] = self._real(name, command["target"]["id"])
        if command.get("data", {}).get("owner_id") is not None:
            command["data"]["owner_id"] = self._real(self.owner(name), command["data"]["owner_id"])
        return command

    def owner(self, name: str) -> str:
        """The entity that another's rows refer to."""
        (key,) = self.entities[name].fields["owner_id"].foreign_keys
        return next(each.name for each in self.entities.values() if each.table is key.column.table)

    def _real(self, name: str, place: int) -> int:
        made = self.made[name]
        return made[place] if place < len(made) else 10**6 + place

    async def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {"events": [self._comparable(event) for event in self.events]}
        for name, entity in self.entities.items():
            rows = await self.desk.rows(f'SELECT * FROM "{entity.table.name}"')
            found[name] = sorted(json.dumps(self._shown(name, row), default=str) for row in rows)
        rows = await self.desk.rows("SELECT what FROM written")
        found["written"] = sorted(self._without_ids(row["what"]) for row in rows)
        return found

    def _without_ids(self, what: str) -> str:
        table, _, row = what.partition("{")
        return table + json.dumps(
            {k: v for k, v in json.loads("{" + row).items() if k != "owner_id"}
        )

    def _comparable(self, event: dict[str, Any]) -> Any:
        name, _, happened = event["type"].partition(".")
        if happened.endswith("rejected"):
            return event["type"]
        return event["type"], self._shown(name, event["data"])

    def _shown(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        shown = {key: value for key, value in row.items() if not key.endswith("_on")}
        shown["id"] = self._place(name, row["id"])
        if row.get("owner_id") is not None:
            shown["owner_id"] = self._place(self.owner(name), row["owner_id"])
        return shown

    def _place(self, name: str, id_: int) -> int:
        return self.made[name].index(id_)


class Together(Way):
    """As groups."""

    async def group(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        return await self.desk.together(*commands)


class OneByOne(Way):
    """Each in a group of its own; each event shows the row at that moment."""

    async def group(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        events = []
        for command in commands:
            (event,) = await self.desk.together(command)
            name, _, happened = event["type"].partition(".")
            if happened in ("created", "updated"):
                entity = self.entities[name]
                async with AsyncSession(self.desk.engine) as session:
                    row = await session.get_one(entity.model, event["data"]["id"])
                    assert event["data"] == as_json(entity.data_of(row))
            events.append(event)
        return events


class PlainORM(Way):
    """One session and one commit a command."""

    async def group(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        return [await self._one(command) for command in commands]

    async def _one(self, command: Command) -> dict[str, Any]:
        name, verb = command["type"].split(".")
        try:
            async with AsyncSession(self.desk.engine, expire_on_commit=False) as session:
                data = await self._carry_out(session, self.entities[name], verb, command)
        except (SQLAlchemyError, _No):
            return {"type": f"{name}.{verb}.rejected"}
        return {"type": f"{name}.{verb}d", "data": data}

    async def _carry_out(
        self, session: AsyncSession, entity: Entity, verb: str, command: Command
    ) -> Any:
        row: Any = None
        if verb != "create":
            row = await self._found(session, entity, command)
        if verb == "delete":
            shown = as_json(entity.data_of(row))
            await session.delete(row)
            await session.commit()
            return shown
        payload = entity.verbs[verb].payload
        assert payload is not None
        if row is not None and not command["data"]:
            raise _No
        data = payload.model_validate(command["data"])
        now = utc_now()
        if row is None:
            values = {name: _said(entity, name, each) for name, each in values_of(data).items()}
            row = entity.model(**values, version=1, created_on=now, updated_on=now)
            session.add(row)
        else:
            for field in data.model_fields_set:
                setattr(row, field, getattr(data, field))
            row.version += 1
        await session.commit()
        await session.refresh(row)
        return as_json(entity.data_of(row))

    async def _found(self, session: AsyncSession, entity: Entity, command: Command) -> Any:
        ((field, value),) = command["target"].items()
        column = getattr(entity.model, field)
        is_it = column == value
        if field in entity.model.ignore_case:
            is_it = func.lower(column) == func.lower(value)
        row = (await session.scalars(select(entity.model).where(is_it))).one_or_none()
        if row is None or command.get("expected_version", row.version) != row.version:
            raise _No
        return row


class _No(Exception):
    """It is refused."""


def _said(entity: Entity, name: str, value: Any) -> Any:
    """A null that was sent is one; the ORM would take it for a value that the server makes."""
    is_json = isinstance(entity.fields[name].type, JSON)
    return null() if value is None and not is_json else value


def as_json(data: Any) -> Any:
    return json.loads(to_json(data, inf_nan_mode="strings"))


async def compare(engine: AsyncEngine, plan: Plan) -> None:
    shapes, groups = plan
    entities = entities_of(shapes)
    desk = Desk(engine)
    written = "DROP TABLE IF EXISTS written; CREATE TABLE written (what text)"
    found = []
    try:
        await desk.sql(*written.split("; "))
        sql = [
            statement
            for shape, entity in zip(shapes, entities, strict=True)
            for statement in triggers_of(shape, entity.table.name)
        ]
        await desk.open(*entities, sql=sql)
        for kind in (OneByOne, Together, PlainORM):
            tables = ", ".join(f'"{entity.table.name}"' for entity in entities)
            await desk.sql(f"TRUNCATE {tables}, command_ledger, written RESTART IDENTITY CASCADE")
            way = kind(desk, entities)
            await way.carry_out(groups)
            found.append(await way.everything())
            if kind is not PlainORM:
                found[-1]["ledger"] = [
                    row["outcome"]
                    for row in await desk.rows(
                        "SELECT outcome FROM command_ledger ORDER BY position"
                    )
                ]
        differ(found[0], found[1], "together")
        differ(found[0], found[2], "by the plain ORM")
    finally:
        for entity in reversed(entities):
            await desk.sql(f'DROP TABLE IF EXISTS "{entity.table.name}" CASCADE')


def differ(alone: dict[str, Any], other: dict[str, Any], way: str) -> None:
    """Fail where they do, and say how."""
    for what, theirs in other.items():
        for number, (one, two) in enumerate(zip_longest(alone[what], theirs)):
            assert one == two, f"{what} {number}: one by one {one}, {way} {two}"


HEALTH = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture
async def quick(engine: AsyncEngine) -> AsyncEngine:
    """Nobody cuts this database's power."""
    name = engine.url.database
    async with engine.begin() as connection:
        await connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
        await connection.execute(text("CREATE EXTENSION IF NOT EXISTS citext"))
    await engine.dispose()
    return engine


MANY = int(os.environ.get("WORKER_ORACLE", "300"))
"""About a quarter of a second each; and the mapped classes of each stay in memory."""


@pytest.mark.timeout(400)
@given(plans())
@settings(max_examples=100, deadline=None, suppress_health_check=HEALTH)
async def test_groups_single_commands_and_the_plain_orm_agree(
    quick: AsyncEngine, plan: Plan
) -> None:
    await compare(quick, plan)


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(plans())
@settings(max_examples=MANY, deadline=None, suppress_health_check=HEALTH)
async def test_they_agree_in_many_examples(quick: AsyncEngine, plan: Plan) -> None:
    await compare(quick, plan)
