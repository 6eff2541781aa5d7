"""What a schema says of a command is what the worker says of it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field

from dev.fuzz.schemas import fitting, nearly_fitting
from tests.support.fakes import REGISTRY, delivery, make_codec
from tests.unit.commands import commands
from worker.codec.codec import Codec
from worker.codec.schemas import schema_of, schema_of_all
from worker.core.messages import Command, Rejected
from worker.core.models import Base, Row
from worker.core.payloads import OneLine, Payload, omitted
from worker.core.registry import Entity, Registry, Verb

CODEC = make_codec()
ALL = Draft202012Validator(schema_of_all(REGISTRY))
EACH = {type_: Draft202012Validator(schema_of(REGISTRY, type_)) for type_ in REGISTRY.types}


def worker_takes(command: Any, codec: Codec = CODEC) -> bool:
    """Whether it does; that an address is none no schema can say."""
    item = codec.decode(delivery(json.dumps(command)))
    if isinstance(item, Rejected):
        addresses = [fault for fault in item.problem.errors if "e-mail address" in fault.detail]
        assume(not addresses or len(addresses) < len(item.problem.errors))
    return isinstance(item, Command)


@settings(max_examples=600)
@given(commands())
def test_schemas_and_worker_have_one_verdict(command: dict[str, Any]) -> None:
    verdict = worker_takes(command)

    assert ALL.is_valid(command) is verdict
    for type_, validator in EACH.items():
        assert validator.is_valid(command) is (verdict and command["type"] == type_)


schemas = [schema_of(REGISTRY, type_) for type_ in REGISTRY.types]


@given(st.one_of(*map(fitting, schemas)))
def test_what_fits_is_taken(command: dict[str, Any]) -> None:
    assert worker_takes(command)


@settings(max_examples=200)
@given(st.one_of(*map(nearly_fitting, schemas)))
def test_what_nearly_fits_is_taken_if_it_fits(command: dict[str, Any]) -> None:
    assume("type" in command)  # else the property may tell it
    assert ALL.is_valid(command) is worker_takes(command)


def test_the_schemas_are_valid() -> None:
    Draft202012Validator.check_schema(schema_of_all(REGISTRY))
    for type_ in REGISTRY.types:
        Draft202012Validator.check_schema(schema_of(REGISTRY, type_))


def defaults_in(schema: Any) -> list[Any]:
    if isinstance(schema, list):
        return [default for inner in schema for default in defaults_in(inner)]
    if not isinstance(schema, dict):
        return []
    own = [schema["default"]] if "default" in schema else []
    return own + defaults_in(list(schema.values()))


@pytest.mark.parametrize("type_", [type_ for type_ in REGISTRY.types if "create" not in type_])
def test_no_default_is_filled_into_what_changes_a_row(type_: str) -> None:
    """A generator that fills defaults in would clear what its user does not name."""
    assert defaults_in(schema_of(REGISTRY, type_)) == []


def test_the_schema_of_all_fills_none_into_an_update_either() -> None:
    definitions = schema_of_all(REGISTRY)["$defs"]

    for name in ("UserUpdate", "OrderUpdate", "user.update", "order.update"):
        assert defaults_in(definitions[name]) == []
    assert defaults_in(definitions["OrderCreate"]) == [False]


class Part(Payload):
    count: Annotated[int, Field(ge=0)] = omitted()
    label: Annotated[str, OneLine] = "none"


class Everything(Payload):
    """A field of every kind that a user's own payload may have."""

    whole: int = omitted()
    maybe: int | None = None
    ratio: float = 1.0
    bounded: Annotated[float, Field(gt=0, lt=1)] = omitted()
    text: str = omitted()
    line: Annotated[str, OneLine] = omitted()
    mode: Literal["a", "b"] = "a"
    numbers: list[int] = omitted()
    parts: list[Part] = omitted()
    by_name: dict[str, float] = omitted()


class Thing(Row):
    __tablename__ = "things_of_the_schema_test"


Base.metadata.remove(Thing.metadata.tables["things_of_the_schema_test"])  # no migration knows it


async def _never(*_: Any) -> Any:
    raise AssertionError("only its schema is looked at")


OWN = Registry(
    [
        Entity(
            name="thing",
            model=Thing,
            verbs={
                "make": Verb(_never, Everything, targeted=False),
                "turn": Verb(_never, Everything),
            },
        )
    ]
)
OWN_CODEC = Codec(OWN)
OWN_SCHEMA = Draft202012Validator(schema_of_all(OWN))
texts: st.SearchStrategy[Any] = st.sampled_from(
    ["a", "", " a", "a ", "a\n", "a\x00", "\ud800", "\x85", "b", None, 1]
)
numbers: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, 1.0, -1.0, 0.5, 1.5, 1e300, 10**400, -(10**309), True, None, "1", []]
)
things = st.fixed_dictionaries(
    {},
    optional={
        "whole": numbers,
        "maybe": numbers,
        "ratio": numbers,
        "bounded": numbers,
        "text": texts,
        "line": texts,
        "mode": texts,
        "numbers": st.lists(numbers, max_size=3) | numbers,
        "parts": st.lists(
            st.fixed_dictionaries({}, optional={"count": numbers, "label": texts}), max_size=2
        ),
        "by_name": st.dictionaries(st.sampled_from(["a", "b"]), numbers, max_size=2),
        "other": numbers,
    },
)


@settings(max_examples=300)
@given(st.sampled_from(["thing.make", "thing.turn"]), things)
def test_so_have_those_of_a_users_own_payloads(type_: str, data: dict[str, Any]) -> None:
    command = {"type": type_, "data": data}
    if type_ == "thing.turn":
        command["target"] = {"id": 1}

    assert OWN_SCHEMA.is_valid(command) is worker_takes(command, OWN_CODEC)


def test_whole_numbers_are_whole_however_they_are_written() -> None:
    data = {"whole": 3.0, "maybe": 4.0, "numbers": [1.0, 2], "parts": [{"count": 5e0}]}
    for text in (json.dumps(data), json.dumps(data).replace(".0", ".000e0")):
        body = f'{{"type":"thing.make","data":{text}}}'
        item = OWN_CODEC.decode(delivery(body))
        assert isinstance(item, Command)
        found = item.data.model_dump(exclude_unset=True)
        assert found == {"whole": 3, "maybe": 4, "numbers": [1, 2], "parts": [{"count": 5}]}
        assert type(found["whole"]) is type(found["numbers"][0]) is int


def test_a_number_that_is_not_whole_is_told_as_it_was_given() -> None:
    body = {"type": "thing.make", "data": {"whole": 1.5, "numbers": [2.0, 2.5]}}
    item = OWN_CODEC.decode(delivery(body))

    assert isinstance(item, Rejected)
    assert [fault.pointer for fault in item.problem.errors] == ["/data/whole", "/data/numbers/1"]
