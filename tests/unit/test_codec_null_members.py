"""A member that is null means what an absent one means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.fakes import ANN, delivery, make_codec
from worker.codec.parser import CLOUDEVENTS_MEMBERS, OUR_MEMBERS
from worker.core.messages import Command, Item, Query, Rejected

CODEC = make_codec()
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
COMMANDS: list[dict[str, Any]] = [
    {"id": "c", "type": "user.create", "data": ANN, "key": "k"},
    {"id": "c", "type": "user.update", "target": {"id": 1}, "data": {"rating": None}},
    {"id": "c", "type": "user.delete", "target": {"id": 1}, "expected_version": 3, "data": {}},
    {"id": "c", "type": "order.create", "data": {"user_id": 7}, "specversion": "1.0", "x1": "y"},
]
PROPERTIES: dict[str, Any] = {
    "message_id": "of-the-property",
    "type": "user.create",
    "headers": {"traceparent": PARENT, "tracestate": "a=1"},
}
NAMES = sorted(OUR_MEMBERS | CLOUDEVENTS_MEMBERS | {"tenant", "Not an attribute"})


def meaning(item: Item) -> tuple[Any, ...]:
    """All that follows from a message, but for its very bytes."""
    envelope = item.envelope
    said = (envelope.id, envelope.type, envelope.key, envelope.digest, envelope.trace)
    if isinstance(item, Command):
        return (*said, item.data, item.target, item.expected_version)
    assert not isinstance(item, Query)
    return (*said, item.problem)


@pytest.mark.parametrize("properties", [{}, PROPERTIES], ids=["bare", "with properties"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command["type"])
@pytest.mark.parametrize("name", NAMES)
def test_null_is_absent(name: str, command: dict[str, Any], properties: dict[str, Any]) -> None:
    without = {member: value for member, value in command.items() if member != name}

    with_null = CODEC.decode(delivery({**command, name: None}, **properties))

    assert meaning(with_null) == meaning(CODEC.decode(delivery(without, **properties)))


@given(
    st.sampled_from(COMMANDS), st.sets(st.sampled_from(NAMES)), st.sampled_from([{}, PROPERTIES])
)
def test_so_are_several(
    command: dict[str, Any], names: set[str], properties: dict[str, Any]
) -> None:
    without = {member: value for member, value in command.items() if member not in names}
    assume(without)  # one that names no member has no meaning but its bytes

    with_nulls = CODEC.decode(delivery(command | dict.fromkeys(names), **properties))

    assert meaning(with_nulls) == meaning(CODEC.decode(delivery(without, **properties)))


def test_the_property_makes_a_command_with_a_null_id_exactly_once() -> None:
    item = CODEC.decode(delivery({**COMMANDS[0], "id": None, "type": None}, **PROPERTIES))

    assert isinstance(item, Command)
    assert (item.envelope.id, item.type) == ("of-the-property", "user.create")


def test_a_null_header_leaves_the_trace_to_the_body() -> None:
    body = {**COMMANDS[0], "traceparent": PARENT}
    item = CODEC.decode(delivery(body, headers={"traceparent": None, "tracestate": None}))

    assert item.envelope.trace == {"traceparent": PARENT}


@pytest.mark.parametrize("field", ["username", "user_id", "unknown"])
def test_within_data_null_is_a_value(field: str) -> None:
    item = CODEC.decode(delivery({**COMMANDS[0], "data": {**ANN, field: None}}))

    assert isinstance(item, Rejected)
