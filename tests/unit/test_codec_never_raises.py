"""Whatever comes in, something that can be answered comes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dev.fuzz.answerable import CODEC, assert_answerable
from tests.support.fakes import ANN, delivery
from worker.core.messages import Command

VALID: list[dict[str, Any]] = [
    {"id": "a", "type": "user.create", "data": {**ANN, "rating": 1.5}},
    {
        "id": "b",
        "type": "user.update",
        "target": {"id": 42},
        "data": {"email": "new@example.com", "rating": None},
        "expected_version": 3,
        "key": "k",
    },
    {"id": "c", "type": "user.delete", "target": {"username": "ann"}},
    {"id": "d", "type": "order.create", "data": {"user": {"email": "ann@example.com"}}},
    {"id": "e", "type": "order.update", "target": {"id": 1}, "data": {"is_completed": True}},
    {"id": "f", "type": "order.delete", "target": {"id": 1}, "specversion": "1.0", "source": "/"},
]

# Text that UTF-8 can carry; escapes of lone surrogates come in by `json_documents`.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.just(10**400)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=30)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
short = (
    st.none() | texts | st.sampled_from(["user.create", "worker.commands", "\x1b[31m", "a\r\nb"])
)
headers = st.dictionaries(
    st.sampled_from(["traceparent", "tracestate", "x-death", "x-redrive", "CC", "", "\x00"])
    | texts,
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=20)
    | st.datetimes()
    | st.lists(st.integers() | texts, max_size=3)
    | st.dictionaries(texts, texts, max_size=3),
    max_size=4,
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "message_id": short,
        "type": short,
        "correlation_id": short,
        "reply_to": short,
        "content_encoding": st.none() | st.sampled_from(["utf-8", "gzip"]) | texts,
        "headers": headers,
        "delivery_count": st.integers(),
        "unreadable": st.none() | st.just("its AMQP properties cannot be decoded (ValueError)"),
    },
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths_of(inner, (*path, name))


@st.composite
def mutated_commands(draw: st.DrawFn) -> bytes:
    """A valid command with a few of its members replaced, added or gone, and perhaps some bytes."""
    command = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([path for path in paths_of(command) if path]))
        place: Any = command
        for step in path[:-1]:
            place = place[step]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                place[path[-1]] = draw(documents)
            case "remove" if len(command) > 1:
                del place[path[-1]]
            case _:
                place[draw(st.text(max_size=40))] = draw(documents)
    body = bytearray(json.dumps(command).encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@given(st.binary(max_size=200), properties)
def test_arbitrary_bytes(body: bytes, given_properties: dict[str, Any]) -> None:
    came = delivery(body, **given_properties)
    assert_answerable(CODEC.decode(came), came)


@given(documents, properties)
def test_arbitrary_json_documents(document: Any, given_properties: dict[str, Any]) -> None:
    came = delivery(json.dumps(document), **given_properties)
    assert_answerable(CODEC.decode(came), came)


@given(st.dictionaries(st.sampled_from(sorted({n for v in VALID for n in v})), documents))
def test_arbitrary_members(members: dict[str, Any]) -> None:
    came = delivery(members)
    assert_answerable(CODEC.decode(came), came)


@given(mutated_commands(), properties)
def test_mutated_commands(body: bytes, given_properties: dict[str, Any]) -> None:
    came = delivery(body, **given_properties)
    assert_answerable(CODEC.decode(came), came)


@given(st.text(max_size=80) | st.from_regex(r"[^@]{1,20}@[^@]{1,30}", fullmatch=True))
def test_arbitrary_addresses(address: str) -> None:
    body = {"id": "x", "type": "user.create", "data": {"username": "a", "email": address}}
    came = delivery(body)
    assert_answerable(CODEC.decode(came), came)


def test_valid_commands_are_commands() -> None:
    for command in VALID:
        assert isinstance(CODEC.decode(delivery(command)), Command)
