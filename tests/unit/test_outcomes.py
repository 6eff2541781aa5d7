"""Nothing that cannot be published becomes an outcome; so none of it gets into the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import REGISTRY, make_codec, make_job
from worker.core.errors import Misconfigured
from worker.core.messages import Command, Event, utc_now
from worker.core.registry import Registry
from worker.core.text import MAX_SHORT_STRING, is_event_type
from worker.entities.user import USER
from worker.processing.outcomes import Outcomes, Unpublishable
from worker.processing.row_cache import Record

OUTCOMES = Outcomes(REGISTRY, make_codec())
ROW: dict[str, Any] = {
    "id": 1,
    "username": "ann",
    "email": "ann@example.com",
    "rating": None,
    "version": 1,
    "created_on": utc_now(),
    "updated_on": utc_now(),
}


def event_of(type_: Any = "user.noted", **values: Any) -> Event:
    return Event(type_, Record(USER, ROW | values))


def done(event: Event) -> bytes:
    command = make_job("a").item
    assert isinstance(command, Command)
    return OUTCOMES.done(command, event, utc_now()).answer.body


@pytest.mark.parametrize(
    "type_",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.*",
        "#",
        "x" * 256,
        "ü" * 128,
        "a\0",
        "\ud800",
        None,
        7,
    ],
)
def test_an_event_type_that_cannot_be_routed_is_refused(type_: Any) -> None:
    with pytest.raises(Unpublishable, match="event type"):
        done(event_of(type_))


@pytest.mark.parametrize("type_", ["a", "user.noted", "x" * 255, "bestellung.geändert"])
def test_an_event_type_that_can_is_not(type_: str) -> None:
    assert type_.encode() in done(event_of(type_))


@given(st.text(max_size=300))
def test_whatever_is_called_an_event_type_is_a_routing_key(type_: str) -> None:
    if is_event_type(type_):
        assert 1 <= len(type_.encode()) <= MAX_SHORT_STRING
        assert all(type_.split("."))


class Unwritable:
    def __str__(self) -> str:
        raise SystemError


@pytest.mark.parametrize("value", ["\ud800", Unwritable()], ids=["surrogate", "object"])
def test_a_value_that_cannot_be_written_as_json_is_refused(value: Any) -> None:
    with pytest.raises(Unpublishable, match=r"user\.noted"):
        done(event_of(rating=value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"\xff", "NaN", 1e308, object()])
def test_whatever_else_stands_in_a_row_makes_an_event_that_is_json(value: Any) -> None:
    json.loads(done(event_of(rating=value)), parse_constant=pytest.fail)


@pytest.mark.parametrize("name", ["x" * 250, "a b", "a.b", "", "a\n"])
@pytest.mark.parametrize("what", ["entity", "verb"])
def test_names_that_make_no_event_type_are_refused_when_they_are_declared(
    name: str, what: str
) -> None:
    verbs = {name: USER.verbs["create"]} if what == "verb" else USER.verbs
    with pytest.raises(Misconfigured, match="cannot be a command type"):
        Registry([replace(USER, name=name if what == "entity" else "user", verbs=verbs)])
