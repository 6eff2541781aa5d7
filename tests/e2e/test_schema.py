"""`worker schema`: what the schemas allow is what the worker takes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.commandline import CommandLine
from worker.codec.codec import Codec
from worker.codec.schemas import schema_of, schema_of_all
from worker.core.messages import Command, Delivery
from worker.core.registry import load_registry

REGISTRY = load_registry("worker.entities")

USER: dict[str, Any] = {"username": "ann", "email": "ann@example.com"}

GOOD: list[dict[str, Any]] = [
    {"type": "user.create", "data": USER},
    {"type": "user.create", "id": "x", "key": "k", "data": USER | {"rating": None}},
    {"type": "user.create", "id": None, "target": None, "data": USER | {"rating": 4}},
    {"type": "user.create", "data": USER, "specversion": "1.0", "source": "/a", "vendor1": "x"},
    {"type": "user.create", "data": USER, "subject": "x"},
    {"type": "user.update", "target": {"id": 1}, "data": {"rating": None}, "expected_version": 1},
    {"type": "user.update", "target": {"email": "a@x.org"}, "data": {"username": "bob"}},
    {"type": "user.delete", "target": {"id": 1}, "expectedversion": 1, "specversion": "1.0"},
    {"type": "user.delete", "target": {"username": "ann"}},
    {"type": "user.delete", "target": {"id": 1.0}, "expected_version": 2.0},
    {"type": "user.create", "data": USER, "vendor": None, "specversion": None},
    {"type": "user.delete", "target": {"id": 1}, "data": {}},
    {"type": "order.create", "data": {"user_id": 1}},
    {"type": "order.create", "data": {"user": {"username": "ann"}, "is_completed": True}},
    {"type": "order.update", "target": {"id": 1}, "data": {"user": {"id": 1}}},
]
BAD: list[Any] = [
    None,
    [],
    {},
    {"type": "user.destroy"},
    {"type": "user.create"},
    {"type": "user.create", "data": {}},
    {"type": "user.create", "data": USER | {"rating": "4"}},
    {"type": "user.create", "data": USER | {"admin": True}},
    {"type": "user.create", "data": USER | {"username": "a" * 151}},
    {"type": "user.create", "data": USER | {"username": "ann "}},
    {"type": "user.create", "data": USER | {"username": "a\nb"}},
    {"type": "user.create", "data": USER | {"rating": 10**400}},
    {"type": "user.create", "data": USER, "key": "a\x00b"},
    {"type": "user.create", "data": USER, "source": "\ud800"},
    {"type": "user.create", "data": USER, "id": "a\nb"},
    {"type": "user.create", "data": USER, "id": ""},
    {"type": "user.create", "data": USER, "id": "x" * 201},
    {"type": "user.create", "data": USER, "id": 7},
    {"type": "user.create", "data": USER, "target": {"id": 1}},
    {"type": "user.create", "data": USER, "expected_version": 1},
    {"type": "user.create", "data": USER, "vendor1": "x"},
    {"type": "user.create", "data": USER, "specversion": "1.0", "Vendor": "x"},
    {"type": "user.update", "target": {"id": 1}, "data": {}},
    {"type": "user.update", "target": {"id": 1}},
    {"type": "user.update", "data": {"rating": 1}},
    {"type": "user.update", "target": {}, "data": {"rating": 1}},
    {"type": "user.update", "target": {"id": 1, "username": "a"}, "data": {"rating": 1}},
    {"type": "user.update", "target": {"id": 0}, "data": {"rating": 1}},
    {"type": "user.delete", "target": {"id": 1}, "data": {"username": "ann"}},
    {"type": "user.delete", "target": {"id": 1}, "expected_version": 0},
    {"type": "user.delete", "target": {"id": 1}, "expectedversion": "1", "specversion": "1.0"},
    {"type": "user.create", "data": USER, "expectedversion": 1, "specversion": "1.0"},
    {"type": "order.create", "data": {"is_completed": True}},
    {"type": "order.create", "data": {"user_id": 1, "user": {"id": 1}}},
    {"type": "order.create", "data": {"user": {"id": 1, "username": "ann"}}},
    {"type": "order.update", "target": {"id": 1}, "data": {"user_id": 1, "user": {"id": 1}}},
    {"type": "order.update", "target": {"username": "ann"}, "data": {"user_id": 1}},
]


def worker_takes(command: Any) -> bool:
    class Nowhere:
        closed = False

        def begin(self, tag: int) -> None: ...

        def defer(self, tag: int) -> None: ...

        def settle(self, tag: int) -> None: ...

        def reject(self, tag: int) -> None: ...

    delivery = Delivery(json.dumps(command).encode(), 1, Nowhere())
    return isinstance(Codec(REGISTRY).decode(delivery), Command)


def test_the_schemas_are_valid() -> None:
    Draft202012Validator.check_schema(schema_of_all(REGISTRY))
    for type_ in REGISTRY.types:
        Draft202012Validator.check_schema(schema_of(REGISTRY, type_))


@pytest.mark.parametrize("command", [*GOOD, *BAD], ids=lambda command: json.dumps(command)[:60])
def test_a_schema_says_what_the_worker_says(command: Any) -> None:
    good = command in GOOD
    assert worker_takes(command) is good
    assert Draft202012Validator(schema_of_all(REGISTRY)).is_valid(command) is good
    for type_ in REGISTRY.types:
        fits = good and command["type"] == type_
        assert Draft202012Validator(schema_of(REGISTRY, type_)).is_valid(command) is fits


async def test_the_command_prints_them(bare: CommandLine) -> None:
    one, all_ = await asyncio.gather(bare("schema", "order.create"), bare("schema"))
    assert json.loads(one.out) == schema_of(REGISTRY, "order.create")
    assert json.loads(all_.out) == schema_of_all(REGISTRY)
