"""The JSON Schemas of queries say what the worker says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from tests.support.filters import Where, conditions
from worker.codec.schemas import schema_of
from worker.core.registry import load_registry

REGISTRY = load_registry("worker.entities")
LIST = Draft202012Validator(schema_of(REGISTRY, "user.list"))


@pytest.mark.parametrize("type_", REGISTRY.query_types)
def test_each_is_a_schema(type_: str) -> None:
    Draft202012Validator.check_schema(schema_of(REGISTRY, type_))


@given(where=conditions("user"))
@settings(deadline=None)
def test_a_filter_that_the_worker_takes_fits(where: Where) -> None:
    LIST.validate({"type": "user.list", "data": {"where": where, "order_by": ["-rating"]}})


@pytest.mark.parametrize(
    "data",
    [
        {"where": {"nope": 1}},
        {"where": {"rating": "x"}},
        {"where": {"rating": {"like": 1}}},
        {"where": {"orders": {"is_completed": True}}},
        {"where": {"orders": {"some": {"nope": 1}}}},
        {"where": {"id": None}},
        {"order_by": ["nope"]},
        {"limit": 0},
        {"aggregate": {"avg": ["username"]}},
    ],
)
def test_what_the_worker_refuses_does_not_fit(data: Any) -> None:
    assert not LIST.is_valid({"type": "user.list", "data": data})


def test_one_row_needs_its_target() -> None:
    get = Draft202012Validator(schema_of(REGISTRY, "user.get"))
    assert get.is_valid({"type": "user.get", "target": {"id": 1}})
    assert not get.is_valid({"type": "user.get"})
