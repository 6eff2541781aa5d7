"""Every message that is no usable command is told why, once, and harms nobody."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.support.fakes import ANN, delivery, make_codec
from worker.codec import codec as codec_module
from worker.codec import parser, validation
from worker.codec.codec import Codec
from worker.codec.validation import MAX_FAULTS
from worker.core.messages import Command, Problem, Rejected, utc_now

CREATE = {"id": "c1", "type": "user.create", "data": ANN}
UPDATE = {"id": "c2", "type": "user.update", "target": {"id": 1}, "data": {"rating": 1}}


def problem_of(codec: Codec, body: Any, **properties: Any) -> Problem:
    item = codec.decode(delivery(body, **properties))
    assert isinstance(item, Rejected)
    return item.problem


def pointers(problem: Problem) -> list[str]:
    return [fault.pointer for fault in problem.errors]


def with_data(raw: str) -> str:
    return f'{{"id":"x","type":"user.create","data":{raw}}}'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b'{"id": "\xff"}', "byte 8 is not UTF-8"),
        (b'\xef\xbb\xbf{"id": "x"}', "byte order mark"),
        ('{"id": "x"}'.encode("utf-16"), "not UTF-8"),
        (b'{"id": "x"', "not JSON"),
        (b'{"id": "x"} {"id": "y"}', "not JSON"),
        (b"{'id': 'x'}", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"17", "not a JSON object"),
        (b'{"id": "x", "id": "y"}', "same member twice"),
        (with_data('{"username": "a", "username": "b"}').encode(), "same member twice"),
        (with_data('{"rating": NaN}').encode(), "NaN is not JSON"),
        (with_data('{"rating": Infinity}').encode(), "Infinity is not JSON"),
        (with_data('{"rating": -Infinity}').encode(), "-Infinity is not JSON"),
        (with_data('{"rating": 1e999}').encode(), "out of range"),
        (with_data('{"rating": -1e999}').encode(), "out of range"),
        (with_data('{"rating": %s}' % ("9" * 5_000)).encode(), "out of range"),
        (with_data('{"username": "a\x00b"}').encode(), "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_malformed(codec: Codec, body: bytes, says: str) -> None:
    problem = problem_of(codec, body)

    assert problem.code == "malformed"
    assert says in problem.detail


def test_a_doubly_escaped_nul_is_text_like_any_other(codec: Codec) -> None:
    item = codec.decode(delivery({**CREATE, "key": "a\\u0000b"}))

    assert isinstance(item, Command)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("member", ["data", "target", "key", "unknown"])
def test_no_depth_of_nesting_is_too_much(codec: Codec, opening: str, member: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth in (*range(100, 940, 60), *range(940, 1_040)):
        nested = opening * depth + "1" + closing * depth
        body = f'{{"id":"x","type":"user.update","{member}":{nested}}}'
        assert isinstance(codec.decode(delivery(body)), Rejected), depth


def test_a_hundred_thousand_unknown_members_cost_no_fault_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = 0
    original = validation.pointer_to

    def counted(path: tuple[str | int, ...]) -> str:
        nonlocal made
        made += 1
        return original(path)

    monkeypatch.setattr(parser, "pointer_to", counted)
    many = {f"key-{number}": number for number in range(60_000)}
    codec = make_codec(max_body_bytes=10_000_000)
    problem = problem_of(codec, {**CREATE, **many, "data": {**ANN, **many}})

    assert len(problem.errors) == MAX_FAULTS
    assert "(and 119999 more)" in problem.detail
    assert made <= 2 * MAX_FAULTS


def test_a_body_of_16_mib_is_refused_unread(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(codec_module, "read_object", parse)
    item = codec.decode(delivery(b" " * 16_777_216, message_id="big", type="user.create"))

    assert isinstance(item, Rejected)
    assert (item.problem.code, item.envelope.id) == ("too_large", "big")
    assert item.envelope.type == "user.create"
    assert "16777216 bytes; at most 1048576" in item.problem.detail


def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = json.dumps(CREATE).encode()

    assert isinstance(make_codec(max_body_bytes=len(body)).decode(delivery(body)), Command)
    assert isinstance(make_codec(max_body_bytes=len(body) - 1).decode(delivery(body)), Rejected)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "base64", "x-unknown"])
def test_compressed_bodies_are_not_unpacked(codec: Codec, encoding: str) -> None:
    bomb = gzip.compress(b" " * 1_000_000)
    problem = problem_of(codec, bomb, content_encoding=encoding)

    assert problem.code == "malformed"
    assert "compressed" in problem.detail


@pytest.mark.parametrize("encoding", [None, "", "utf-8", "UTF-8", "utf8", "identity", "Identity"])
def test_an_encoding_that_changes_nothing_is_accepted(codec: Codec, encoding: str | None) -> None:
    assert isinstance(codec.decode(delivery(CREATE, content_encoding=encoding)), Command)


@pytest.mark.parametrize("type_", [None, 7, ["user.create"], {}, True])
def test_a_type_that_is_no_string_is_an_unknown_type(codec: Codec, type_: object) -> None:
    item = codec.decode(delivery({"id": "x", "type": type_}))

    assert isinstance(item, Rejected)
    assert (item.problem.code, item.envelope.type) == ("unknown_type", None)


@pytest.mark.parametrize(
    "type_",
    [
        "",
        ".",
        "user",
        "user.",
        ".create",
        "user.paint",
        "USER.create",
        "user.create ",
        "user.create\n",
        "us\u0435r.create",
        "user..create",
        "user.create.rejected",
        "user.__class__",
        "command",
    ],
)
def test_look_alike_types_are_unknown(codec: Codec, type_: str) -> None:
    item = codec.decode(delivery({**CREATE, "type": type_}))

    assert isinstance(item, Rejected)
    assert item.problem.code == "unknown_type"
    assert "user.create" in item.problem.detail
    answer = codec.problem_answer(item.envelope, "rejected", item.problem, time=utc_now())
    assert answer.type == "command.rejected"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"colour": 1}, "/colour"),
        ({"data": {**ANN, "admin": True}}, "/data/admin"),
        ({"data": {**ANN, "a/b~c": 1}}, "/data/a~1b~0c"),
        ({"data": {**ANN, "version": 9}}, "/data/version"),
        ({"data": {**ANN, "id": 9}}, "/data/id"),
        ({"target": {"id": 1}}, "/target"),
        ({"expected_version": 1}, "/expected_version"),
        ({"data": None}, "/data"),
        ({"data": []}, "/data"),
        ({"data": {}}, "/data/username"),
        ({"id": ""}, "/id"),
        ({"id": "x" * 201}, "/id"),
        ({"id": 7}, "/id"),
        ({"id": True}, "/id"),
        ({"id": ["x"]}, "/id"),
        ({"id": "a\r\nb"}, "/id"),
        ({"id": "\x1b[31mred"}, "/id"),
        ({"id": "\x9b31m"}, "/id"),
        ({"key": ""}, "/key"),
        ({"key": 5}, "/key"),
        ({"key": "k" * 1_001}, "/key"),
        ({"data": {**ANN, "username": ""}}, "/data/username"),
        ({"data": {**ANN, "username": "x" * 151}}, "/data/username"),
        ({"data": {**ANN, "username": " ann"}}, "/data/username"),
        ({"data": {**ANN, "username": "ann "}}, "/data/username"),
        ({"data": {**ANN, "username": "ann\u00a0"}}, "/data/username"),
        ({"data": {**ANN, "username": "a\nb"}}, "/data/username"),
        ({"data": {**ANN, "username": "a\x1b[2Jb"}}, "/data/username"),
        ({"data": {**ANN, "username": "a\x85b"}}, "/data/username"),
        ({"data": {**ANN, "username": 7}}, "/data/username"),
        ({"data": {**ANN, "username": None}}, "/data/username"),
        ({"data": {**ANN, "email": "nope"}}, "/data/email"),
        ({"data": {**ANN, "email": f"{'a' * 300}@example.com"}}, "/data/email"),
        ({"data": {**ANN, "email": "a@example.com\r\nBcc: b@example.com"}}, "/data/email"),
        ({"data": {**ANN, "rating": True}}, "/data/rating"),
        ({"data": {**ANN, "rating": "5"}}, "/data/rating"),
        ({"data": {**ANN, "rating": 10**400}}, "/data/rating"),
        ({"data": {**ANN, "rating": []}}, "/data/rating"),
    ],
)
def test_each_fault_of_a_create_is_pointed_at(
    codec: Codec, change: dict[str, Any], pointer: str
) -> None:
    problem = problem_of(codec, {**CREATE, **change})

    assert problem.code == "invalid"
    assert pointer in pointers(problem)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"target": None}, "/target"),
        ({"target": 42}, "/target"),
        ({"target": []}, "/target"),
        ({"target": {}}, "/target"),
        ({"target": {"id": 1, "username": "ann"}}, "/target"),
        ({"target": {"id": 1, "email": "a@b.de", "username": "a"}}, "/target"),
        ({"target": {"rating": 1}}, "/target/rating"),
        ({"target": {"id": 1, "rating": 1}}, "/target/rating"),
        ({"target": {"id": 0}}, "/target/id"),
        ({"target": {"id": -1}}, "/target/id"),
        ({"target": {"id": 2**63}}, "/target/id"),
        ({"target": {"id": 10**300}}, "/target/id"),
        ({"target": {"id": True}}, "/target/id"),
        ({"target": {"id": 1.5}}, "/target/id"),
        ({"target": {"id": "1"}}, "/target/id"),
        ({"target": {"id": None}}, "/target/id"),
        ({"target": {"username": "ann "}}, "/target/username"),
        ({"target": {"email": "nope"}}, "/target/email"),
        ({"data": {}}, "/data"),
        ({"data": {"username": None}}, "/data/username"),
        ({"data": {"email": None}}, "/data/email"),
        ({"expected_version": 0}, "/expected_version"),
        ({"expected_version": -1}, "/expected_version"),
        ({"expected_version": 2**31}, "/expected_version"),
        ({"expected_version": True}, "/expected_version"),
        ({"expected_version": 1.5}, "/expected_version"),
        ({"expected_version": "1"}, "/expected_version"),
    ],
)
def test_each_fault_of_an_update_is_pointed_at(
    codec: Codec, change: dict[str, Any], pointer: str
) -> None:
    problem = problem_of(codec, {**UPDATE, **change})

    assert problem.code == "invalid"
    assert pointer in pointers(problem)


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({}, "/data"),
        ({"user_id": 1, "user": {"id": 1}}, "/data"),
        ({"user": {}}, "/data/user"),
        ({"user": {"id": 1, "username": "ann"}}, "/data/user"),
        ({"user": None}, "/data/user"),
        ({"user_id": None}, "/data/user_id"),
        ({"user_id": True}, "/data/user_id"),
        ({"user_id": 2**63}, "/data/user_id"),
        ({"user_id": 1, "is_completed": 1}, "/data/is_completed"),
        ({"user_id": 1, "is_completed": None}, "/data/is_completed"),
    ],
)
def test_each_fault_of_an_order_is_pointed_at(
    codec: Codec, data: dict[str, Any], pointer: str
) -> None:
    problem = problem_of(codec, {"id": "o", "type": "order.create", "data": data})

    assert pointer in pointers(problem)


def test_all_faults_are_told_at_once(codec: Codec) -> None:
    problem = problem_of(
        codec,
        {"id": "x", "type": "user.update", "target": {}, "data": {"rating": "x", "foo": 1}, "z": 1},
    )

    assert {"/z", "/target", "/data/rating", "/data/foo"} <= set(pointers(problem))


@pytest.mark.parametrize(
    "queue",
    ["worker.commands", "worker.events", "worker.dead-letters", "worker.commands.7"],
)
def test_an_answer_cannot_be_sent_to_our_own_queues(codec: Codec, queue: str) -> None:
    item = codec.decode(delivery(CREATE, reply_to=queue))

    assert isinstance(item, Rejected)
    assert pointers(item.problem) == ["/reply_to"]
    assert item.envelope.reply_to is None


@pytest.mark.parametrize("name", ["message_id", "correlation_id", "reply_to"])
@pytest.mark.parametrize("value", ["a\r\nb", "\x1b[31m", "a\x00b", "\x85"])
def test_control_characters_in_properties_are_refused_and_not_echoed(
    codec: Codec, name: str, value: str
) -> None:
    item = codec.decode(delivery({"type": "user.create", "data": ANN}, **{name: value}))

    assert isinstance(item, Rejected)
    envelope = item.envelope
    assert value not in (envelope.id, envelope.correlation_id, envelope.reply_to)


def test_properties_that_could_not_be_read_are_the_reason(codec: Codec) -> None:
    problem = problem_of(codec, CREATE, unreadable="its AMQP properties cannot be decoded")

    assert problem.code == "malformed"
    assert "properties cannot be decoded" in problem.detail


def test_a_pointer_is_never_cut_within_an_escape(codec: Codec) -> None:
    for padding in range(4):
        name = "a" * padding + "~" * 200
        problem = problem_of(codec, {**CREATE, name: 1})
        assert problem.errors[0].pointer.replace("~0", "").replace("~1", "").count("~") == 0


@pytest.mark.parametrize("field", ["username", "email"])
def test_a_text_that_is_too_long_is_told_in_words_for_people(codec: Codec, field: str) -> None:
    data = {**ANN, field: "a" * 240 + "@example.com" + "m" * 100}
    (fault,) = problem_of(codec, {**CREATE, "data": data}).errors

    assert "character" in fault.detail
    assert "items" not in fault.detail
    assert "validation" not in fault.detail
