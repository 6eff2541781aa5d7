"""G5 and G2 under random commands: grouped and one by one must agree in rows, events and ledger."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.fakes import is_up
from tests.support.harness import Harness, Nowhere
from worker.codec.codec import Codec
from worker.core.backoff import Backoff
from worker.core.messages import DeadLetter, Delivery, Done, Job, Refused
from worker.core.registry import load_registry
from worker.database.engine import autocommit, make_engine, make_sessions
from worker.processing.processor import Processor
from worker.settings.settings import Settings

NAMES = ("ann", "bob", "eve")
ADDRESSES = ("ann@example.com", "ANN@example.com", "bob@example.com", "nonsense")

UNLIKE = frozenset({"time", "created_on", "updated_on", "recorded_on", "event_id", "position"})
"""What two runs of the same commands do not have in common."""

Command = dict[str, Any]


def commands() -> st.SearchStrategy[Command]:
    """Good, bad, conflicting and duplicate ones, about few rows, so that they meet."""
    name, address = st.sampled_from(NAMES), st.sampled_from(ADDRESSES)
    user = st.one_of(
        st.builds(lambda v: {"username": v}, name), st.builds(lambda v: {"email": v}, address)
    )
    # An order has no key but its id: the n-th one made so far.
    order = st.builds(lambda n: {"id": n}, st.integers(0, 5))
    rating = st.sampled_from((None, 1, 2.5, "three"))
    version = st.sampled_from((None, None, 1, 2))

    def command(type_: str, **parts: Any) -> st.SearchStrategy[Command]:
        return st.fixed_dictionaries(
            {"id": st.integers(0, 40).map(str), "type": st.just(type_), **parts}
        )

    return st.one_of(
        command("user.create", data=st.fixed_dictionaries({"username": name, "email": address})),
        command(
            "user.update",
            target=user,
            expected_version=version,
            data=st.fixed_dictionaries(
                {}, optional={"username": name, "email": address, "rating": rating}
            ),
        ),
        command("user.delete", target=user, expected_version=version),
        command("user.bump", target=user),
        command("user.write_and_refuse", target=user),
        command("order.create", data=st.fixed_dictionaries({"user": user})),
        command("order.update", target=order, data=st.fixed_dictionaries({"user": user})),
        command("order.delete", target=order),
        command("user.paint"),
    )


@dataclass
class Run:
    """Carries commands out on one database, and writes down all that can be seen of it."""

    engine: AsyncEngine
    budget_seconds: float
    seen: list[Any] = field(default_factory=list)
    ids: dict[str, list[int]] = field(default_factory=lambda: {"user": [], "order": []})

    def __post_init__(self) -> None:
        registry = load_registry("tests.support.probes")
        self.codec = Codec(registry)
        self.processor = Processor(
            make_sessions(self.engine),
            registry,
            self.codec,
            max_attempts=3,
            backoff=Backoff(0.001, 0.001),
            max_deliveries=10,
            budget_seconds=self.budget_seconds,
            is_up=is_up,
            autocommit=autocommit(self.engine),
        )

    async def carry_out(self, group: Sequence[Command]) -> None:
        bodies = [json.dumps(command).encode() for command in group]
        jobs = [Job(self.codec.decode(Delivery(body, 0, Nowhere()))) for body in bodies]
        for outcome in await self.processor.process(jobs):
            assert isinstance(outcome, Done | Refused | DeadLetter), outcome
            event = json.loads(outcome.answer.body)
            entity, _, happened = event["type"].partition(".")
            if happened == "created" and event["data"]["id"] not in self.ids[entity]:
                self.ids[entity].append(event["data"]["id"])
            self.seen.append([type(outcome).__name__, outcome.answer.replayed, event])

    def with_real_id(self, command: Command) -> Command:
        """The command, about the n-th order that there is by now."""
        target = command.get("target", {})
        if "id" not in target:
            return command
        known = self.ids["order"]
        number = target["id"]
        return command | {
            "target": {"id": known[number] if number < len(known) else 10**9 + number}
        }

    async def everything(self) -> dict[str, Any]:
        """Events, rows and ledger, with ids and times made comparable."""
        found: dict[str, Any] = {"events": self.seen}
        async with self.engine.connect() as connection:
            for table in ("users", "orders", "command_ledger"):
                rows = await connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))
                found[table] = [dict(row) for row in rows.mappings()]
        for row in found["command_ledger"]:
            row["event_body"] = json.loads(row["event_body"])
            del row["digest"]  # an order's id is part of it
        return {key: self._comparable(value) for key, value in found.items()}

    def _comparable(self, value: Any, entity: str = "") -> Any:
        match value:
            case list():
                return [self._comparable(each) for each in value]
            case dict():
                if "specversion" in value:
                    entity = value["type"].partition(".")[0]
                elif "username" in value:
                    entity = "user"
                elif "user_id" in value:
                    entity = "order"
                return {
                    key: self._number("user" if key == "user_id" else entity, each)
                    if key in ("id", "user_id") and isinstance(each, int)
                    else self._comparable(each, entity)
                    for key, each in value.items()
                    if key not in UNLIKE and not (key == "id" and isinstance(each, str))
                }
            case str():
                return re.sub(
                    r"\b(user|order)([/ ]|.*? with id )(\d+)",
                    lambda m: f"{m[1]}{m[2]}#{self._number(m[1], int(m[3]))}",
                    value,
                )
        return value

    def _number(self, entity: str, id_: int) -> int:
        return self.ids[entity].index(id_) if id_ in self.ids.get(entity, ()) else id_


ANN = {"username": "ann"}
AN_ORDER_MADE_IN_THE_GROUP = [
    {"id": "1", "type": "user.create", "data": {**ANN, "email": "ann@example.com"}},
    {"id": "2", "type": "order.create", "data": {"user": ANN}},
    {"id": "3", "type": "order.update", "target": {"id": 0}, "data": {"user": ANN}},
]


@example(groups=[AN_ORDER_MADE_IN_THE_GROUP], budget_seconds=60.0)
@given(
    groups=st.lists(st.lists(commands(), min_size=1, max_size=12), min_size=1, max_size=4),
    budget_seconds=st.sampled_from((0.000_001, 60.0)),
)
@hypothesis_settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_a_group_changes_nothing_that_can_be_seen(
    engine: AsyncEngine, groups: list[list[Command]], budget_seconds: float
) -> None:
    found = []
    for one_by_one in (True, False):
        async with engine.begin() as connection:
            await connection.execute(
                text("TRUNCATE users, orders, command_ledger RESTART IDENTITY CASCADE")
            )
        run = Run(engine, budget_seconds)
        for group in groups:
            # Before any of them is carried out: a group cannot name what it is yet to make.
            sent = [run.with_real_id(command) for command in group]
            for part in [[command] for command in sent] if one_by_one else [sent]:
                await run.carry_out(part)
        found.append(await run.everything())

    assert found[0] == found[1]


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_grouped_and_a_one_by_one_worker_agree(
    settings: Settings, harness: Harness, seed: int
) -> None:
    chosen = random.Random(seed)
    bodies = [
        {
            "id": str(chosen.randrange(250)),
            "key": "one lane, so that the order is the same",
            **chosen.choice(
                (
                    lambda: {
                        "type": "user.create",
                        "data": {
                            "username": chosen.choice(NAMES),
                            "email": chosen.choice(ADDRESSES),
                        },
                    },
                    lambda: {
                        "type": "user.update",
                        "target": {"username": chosen.choice(NAMES)},
                        "data": {"rating": chosen.randrange(5)},
                    },
                    lambda: {
                        "type": "user.bump",
                        "target": {"username": chosen.choice(NAMES)},
                    },
                    lambda: {"type": "user.delete", "target": {"username": chosen.choice(NAMES)}},
                )
            )(),
        }
        for _ in range(400)
    ]
    seen = []
    for group_size in (1, 64):
        harness.events.clear()
        await harness.rows("TRUNCATE users, orders, command_ledger RESTART IDENTITY CASCADE")
        async with harness.worker(entities="tests.support.probes", group_size=group_size):
            for body in bodies:
                await harness.publish(body)
            await harness.next_event(after=len(bodies) - 1, within=60)
        comparable = Run(make_engine(settings.database), 1)
        for event in harness.events:
            if (
                event.routing_key == "user.created"
                and event.data["id"] not in comparable.ids["user"]
            ):
                comparable.ids["user"].append(event.data["id"])
        seen.append(
            [
                (event.headers.get("x-replayed"), comparable._comparable(event.json))
                for event in harness.events
            ]
        )
        await harness.dead_letters(await harness.waiting("dead-letters"))

    assert seen[0] == seen[1]
