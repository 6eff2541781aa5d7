"""Words of the command line become values of the field's type."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from worker.cli.terminal import Misused
from worker.cli.values import assign, duration, fields, moment, parse, split
from worker.entities.order import OrderCreate
from worker.entities.user import UserCreate, UserKey, UserUpdate


class Everything(BaseModel):
    either: str | int
    note: str | None = None
    tags: list[str] = []
    options: dict[str, int] = {}
    size: Literal["small", "large"] = "small"
    free: Any = None
    number: int = 0


@pytest.mark.parametrize(
    ("model", "assignment", "expected"),
    [
        (UserCreate, "username=123", {"username": "123"}),
        (UserCreate, "username=null", {"username": "null"}),
        (UserCreate, "username=true", {"username": "true"}),
        (UserCreate, 'username="ann"', {"username": '"ann"'}),
        (UserCreate, "username=a=b", {"username": "a=b"}),
        (UserCreate, "username=", {"username": ""}),
        (UserCreate, "rating=4.5", {"rating": 4.5}),
        (UserCreate, "rating=4", {"rating": 4}),
        (UserUpdate, "rating=null", {"rating": None}),
        (UserCreate, "rating=high", {"rating": "high"}),
        (UserCreate, "rating=NaN", {"rating": "NaN"}),
        (UserCreate, "rating=1e999", {"rating": "1e999"}),
        (UserKey, "id=42", {"id": 42}),
        (UserKey, "username=42", {"username": "42"}),
        (OrderCreate, "is_completed=true", {"is_completed": True}),
        (OrderCreate, "is_completed=1", {"is_completed": 1}),
        (OrderCreate, "user.username=42", {"user": {"username": "42"}}),
        (OrderCreate, "user.id=42", {"user": {"id": 42}}),
        (OrderCreate, 'user={"id": 42}', {"user": {"id": 42}}),
        (Everything, "either=12", {"either": 12}),
        (Everything, "either=ab", {"either": "ab"}),
        (Everything, "note=null", {"note": None}),
        (Everything, "note=12", {"note": "12"}),
        (Everything, 'tags=["a"]', {"tags": ["a"]}),
        (Everything, "options.a=1", {"options": {"a": 1}}),
        (Everything, "size=1", {"size": "1"}),
        (Everything, "free=[1]", {"free": [1]}),
        (Everything, "free=word", {"free": "word"}),
        (Everything, "number=007", {"number": "007"}),
        (Everything, "unknown=1", {"unknown": 1}),
        (Everything, "un.known=x", {"un": {"known": "x"}}),
        (None, "anything=null", {"anything": None}),
    ],
)
def test_a_value_has_the_type_of_its_field(
    model: type[BaseModel] | None, assignment: str, expected: dict[str, Any]
) -> None:
    assert fields(model, [assignment]) == expected


def test_assignments_add_to_what_is_there() -> None:
    members = fields(OrderCreate, ["user.id=1", "is_completed=false"], into={"note": "x"})
    assert members == {"note": "x", "user": {"id": 1}, "is_completed": False}


@pytest.mark.parametrize("assignment", ["", "field", "=value", "a..b=c", ".a=b"])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(Misused, match="not of the form"):
        split(assignment)


def test_a_field_of_something_that_is_no_object_is_refused() -> None:
    with pytest.raises(Misused, match="user is no object"):
        assign({"user": "ann"}, ["user", "username"], "ann")


@given(st.text(), st.frozensets(st.sampled_from(["string", "number", "null", "object"])))
def test_whatever_is_typed_can_be_sent_as_json(text: str, types: frozenset[str]) -> None:
    json.dumps(parse(text, types), allow_nan=False)


@given(st.text())
def test_text_stays_text_where_only_text_is_taken(text: str) -> None:
    assert parse(text, frozenset({"string"})) == text


def test_durations() -> None:
    assert duration("90s") == timedelta(seconds=90)
    assert duration("1.5m") == timedelta(seconds=90)
    assert duration("2h") == timedelta(hours=2)
    assert duration("7d") == timedelta(days=7)
    assert [duration(text) for text in ("", "5", "m", "-5m", "5 m", "5w")] == [None] * 6
    assert duration("9" * 30 + "d") is None


def test_moments() -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert moment("1h", now) == now - timedelta(hours=1)
    assert moment("2026-11-23T11:00:00Z", now) == now - timedelta(hours=1)
    assert moment("2026-11-23T13:00:00+02:00", now) == now - timedelta(hours=1)
    assert moment("2026-11-23T11:00:00", now) is None
    assert moment("soon", now) is None
    assert moment("999999999d", now) is None
