"""What a usable command means, and which commands mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import ANN, delivery, make_codec
from worker.codec.codec import Codec
from worker.core.messages import Command, Target

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(codec: Codec, body: Any, **properties: Any) -> Command:
    item = codec.decode(delivery(body, **properties))
    assert isinstance(item, Command), item
    return item


def create(**members: Any) -> dict[str, Any]:
    return {"id": "c", "type": "user.create", "data": ANN, **members}


def update(**members: Any) -> dict[str, Any]:
    return {"id": "c", "type": "user.update", "target": {"id": 42}, **members}


def test_a_create_is_read_whole(codec: Codec) -> None:
    command = read(codec, create(), correlation_id="chain", reply_to="asker")

    assert (command.entity, command.verb, command.type) == ("user", "create", "user.create")
    assert command.data.model_dump() == {**ANN, "rating": None}
    assert (command.target, command.expected_version) == (None, None)
    envelope = command.envelope
    assert (envelope.id, envelope.type) == ("c", "user.create")
    assert (envelope.correlation_id, envelope.reply_to) == ("chain", "asker")


def test_id_and_type_may_stand_in_the_properties(codec: Codec) -> None:
    command = read(codec, {"data": ANN}, message_id="p", type="user.create")

    assert (command.envelope.id, command.type) == ("p", "user.create")


def test_the_body_has_precedence_over_the_properties(codec: Codec) -> None:
    command = read(codec, create(), message_id="other", type="order.delete")

    assert (command.envelope.id, command.type) == ("c", "user.create")


def test_a_command_may_have_no_id(codec: Codec) -> None:
    envelope = read(codec, {"type": "user.create", "data": ANN}).envelope

    assert (envelope.id, envelope.correlation_id) == (None, None)


def test_the_correlation_id_is_the_command_id_unless_given(codec: Codec) -> None:
    assert read(codec, create()).envelope.correlation_id == "c"
    assert read(codec, create(), correlation_id="x").envelope.correlation_id == "x"


def test_a_structured_cloudevent_with_extensions_is_a_command(codec: Codec) -> None:
    command = read(
        codec,
        create(
            specversion="1.0",
            source="/shop",
            subject="ann",
            time="2026-11-22T13:09:00Z",
            datacontenttype="application/json",
            dataschema="https://example.com/user",
            traceparent=PARENT,
            tenant="eu",
            partitionkey="7",
        ),
    )

    assert command.envelope.trace == {"traceparent": PARENT}


def test_extensions_need_a_cloudevent_around_them(codec: Codec) -> None:
    assert not isinstance(codec.decode(delivery(create(tenant="eu"))), Command)
    assert not isinstance(
        codec.decode(delivery(create(specversion="1.0", Tenant_Name="eu"))), Command
    )


def test_only_the_given_fields_of_an_update_are_set(codec: Codec) -> None:
    command = read(codec, update(data={"username": "eve"}))

    assert command.data.model_fields_set == {"username"}


def test_an_explicit_null_clears_an_optional_field(codec: Codec) -> None:
    command = read(codec, update(data={"rating": None}))

    assert command.data.model_fields_set == {"rating"}
    assert command.data.rating is None


@pytest.mark.parametrize(
    "target", [{"id": 2**63 - 1}, {"id": 1}, {"username": "ann"}, {"email": "ann@example.com"}]
)
def test_a_target_is_any_unique_key(codec: Codec, target: dict[str, Any]) -> None:
    command = read(codec, {"id": "d", "type": "user.delete", "target": target})

    ((name, value),) = target.items()
    assert command.target == Target(name, value)


@pytest.mark.parametrize("version", [1, 3, 2**31 - 1])
def test_an_expected_version_is_kept(codec: Codec, version: int) -> None:
    command = read(codec, update(data={"rating": 1}, expected_version=version))

    assert command.expected_version == version


def test_null_is_no_expected_version(codec: Codec) -> None:
    assert read(codec, update(data={"rating": 1}, expected_version=None)).expected_version is None


@pytest.mark.parametrize("data", [{}, None])
def test_a_delete_may_carry_empty_data(codec: Codec, data: object) -> None:
    body = {"id": "d", "type": "user.delete", "target": {"id": 1}, "data": data}

    assert read(codec, body).data is None


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (create(), "user:username=ann"),
        (create(data={**ANN, "username": "Ann"}), "user:username=ann"),
        (update(data={"rating": 1}), "user:id=42"),
        (update(target={"email": "Ann@Example.com"}, data={"rating": 1}),
         "user:email=ann@example.com"),
        ({"type": "order.create", "data": {"user_id": 7}}, "user:id=7"),
        ({"type": "order.create", "data": {"user": {"username": "Ann"}}}, "user:username=ann"),
        ({"type": "order.delete", "target": {"id": 7}}, "order:id=7"),
        (create(key="mine"), "mine"),
    ],
)  # fmt: skip
def test_the_ordering_key_follows_from_the_command(
    codec: Codec, body: dict[str, Any], key: str
) -> None:
    assert read(codec, body).envelope.key == key


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        (
            {"traceparent": PARENT, "tracestate": "a=1"},
            {"traceparent": PARENT, "tracestate": "a=1"},
        ),
        ({"traceparent": PARENT, "tracestate": "a\r\nb"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "a" * 513}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": b"\xff"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT + "\n"}, {}),
        ({"traceparent": "nonsense", "tracestate": "a=1"}, {}),
        ({"traceparent": 7}, {}),
        ({"traceparent": b"\xff"}, {}),
        ({"tracestate": "a=1"}, {}),
    ],
)
def test_only_a_valid_trace_is_passed_on(
    codec: Codec, headers: dict[str, Any], kept: dict[str, str]
) -> None:
    assert read(codec, create(), headers=headers).envelope.trace == kept


def test_the_trace_of_the_headers_goes_before_that_of_the_body(codec: Codec) -> None:
    other = PARENT.replace("4bf9", "0000")
    command = read(codec, create(traceparent=other), headers={"traceparent": PARENT})

    assert command.envelope.trace == {"traceparent": PARENT}


def test_what_means_the_same_has_the_same_digest(codec: Codec) -> None:
    plain = read(codec, create()).envelope.digest
    spaced = json.dumps(create(), indent=3)
    turned = json.dumps(dict(reversed(create().items())))
    escaped = json.dumps(create()).replace("ann", "\\u0061nn")

    assert len(plain) == 32
    for body in (spaced, turned, escaped, create(time="2026-01-01T00:00:00Z"), create(id="other")):
        assert read(codec, body).envelope.digest == plain
    bare = read(codec, {"data": ANN}, type="user.create", message_id="c", correlation_id="x")
    assert bare.envelope.digest == plain


def test_what_means_something_else_has_another_digest(codec: Codec) -> None:
    bodies = [
        create(),
        create(data={**ANN, "rating": 1}),
        create(data={**ANN, "rating": None}),
        create(data={**ANN, "username": "Ann"}),
        update(data={"rating": 1}),
        update(data={"rating": None}),
        update(data={"rating": 1}, expected_version=1),
        update(data={"rating": 1}, expected_version=2),
        update(target={"id": 43}, data={"rating": 1}),
        {"id": "c", "type": "user.delete", "target": {"id": 42}},
        {"id": "c", "type": "order.delete", "target": {"id": 42}},
    ]

    assert len({read(codec, body).envelope.digest for body in bodies}) == len(bodies)


def test_unreadable_bodies_have_digests_too(codec: Codec) -> None:
    digests = {codec.decode(delivery(body)).envelope.digest for body in (b"", b"{", b"[]", b"\xff")}

    assert len(digests) == 4
    assert all(len(digest) == 32 for digest in digests)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)


@given(st.dictionaries(words, st.integers() | words, max_size=5))
def test_the_order_of_members_is_no_part_of_the_meaning(members: dict[str, Any]) -> None:
    codec = make_codec()
    turned = dict(reversed(members.items()))
    one, other = (
        codec.decode(delivery({"id": "x", "type": "user.create", "data": data}))
        for data in (members, turned)
    )

    assert one.envelope.digest == other.envelope.digest


@given(
    username=st.text(min_size=1, max_size=150),
    rating=st.floats(allow_nan=False, allow_infinity=False) | st.none(),
)
def test_what_is_valid_is_kept_as_it_was_given(username: str, rating: float | None) -> None:
    item = make_codec().decode(
        delivery(create(data={**ANN, "username": username, "rating": rating}))
    )

    if isinstance(item, Command):
        assert item.data.username == username
        assert item.data.rating == rating
        assert username == username.strip()
        assert "\x00" not in username
