"""CloudEvents in both modes, made and read by the official SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from dev.fuzz.answerable import assert_answerable
from tests.support.fakes import ANN, delivery, make_codec
from worker.broker.client.dead_letter import StoredDeadLetter
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.subscription import read_delivery
from worker.broker.protocol.cloudevents import PREFIXES, attributes_in
from worker.broker.protocol.properties import of
from worker.broker.publisher.publications import Publications
from worker.broker.topology import Topology
from worker.core.messages import (
    Command,
    DeadLetter,
    Delivery,
    Done,
    Item,
    Job,
    Rejected,
    Settled,
    Target,
)
from worker.settings.settings import BrokerSettings

CODEC = make_codec()
TOPOLOGY = Topology("worker", BrokerSettings())
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = datetime(2026, 11, 22, 13, 9, tzinfo=UTC)

CREATE = {"id": "c", "type": "user.create", "data": {**ANN, "rating": 4.5}, "key": "k"}
UPDATE = {
    "id": "c",
    "type": "user.update",
    "target": {"id": 42},
    "data": {"rating": None},
    "expectedversion": 3,
    "traceparent": PARENT,
}
DELETE = {"id": "c", "type": "user.delete", "target": {"username": "ä \"b'"}, "tenant": "eu"}
COMMANDS: list[dict[str, Any]] = [CREATE, UPDATE, DELETE]


def came(body: bytes, headers: dict[str, Any], content_type: str | None = None) -> Delivery:
    """The message as a worker takes it off the wire."""
    own = Basic.Properties(headers=headers, content_type=content_type, message_id="not this one")
    header = ContentHeader(body_size=len(body), properties=own).marshal()
    window = cast(AckWindow, None)
    return read_delivery(1, redelivered=False, header=header, body=body, window=window)


def event_of(command: dict[str, Any], *, target_as_text: bool) -> CloudEvent:
    """The command as an event of the SDK, which allows attributes no underscore."""
    attributes: dict[str, Any] = {"source": "/shop", "time": NOW, **command}
    attributes["datacontenttype"] = "application/json"
    data = attributes.pop("data", None)
    if target_as_text and "target" in attributes:
        attributes["target"] = json.dumps(attributes["target"])
    return CloudEvent(attributes, data)


def structured_by_rabbitmq(command: dict[str, Any]) -> Delivery:
    made = rabbitmq.to_structured_event(event_of(command, target_as_text=False))
    return came(made.body, dict(made.headers), made.content_type)


def binary_by_rabbitmq(command: dict[str, Any]) -> Delivery:
    made = rabbitmq.to_binary_event(event_of(command, target_as_text=True))
    return came(made.body, dict(made.headers), made.content_type)


def structured_by_amqp(command: dict[str, Any]) -> Delivery:
    made = amqp.to_structured_event(event_of(command, target_as_text=False))
    content_type = made.properties["content-type"]
    return came(made.application_data, dict(made.application_properties), content_type)


def binary_by_amqp(command: dict[str, Any]) -> Delivery:
    """The binding for AMQP 1.0: RabbitMQ makes headers of its application properties."""
    made = amqp.to_binary_event(event_of(command, target_as_text=False))
    content_type = made.properties["content-type"]
    return came(made.application_data, dict(made.application_properties), content_type)


def binary_with_colon(command: dict[str, Any]) -> Delivery:
    made = amqp.to_binary_event(event_of(command, target_as_text=False))
    headers = {
        name.replace("cloudEvents_", "cloudEvents:"): value
        for name, value in made.application_properties.items()
    }
    return came(made.application_data, headers)


MAKERS = [
    structured_by_rabbitmq,
    binary_by_rabbitmq,
    structured_by_amqp,
    binary_by_amqp,
    binary_with_colon,
]


def meaning(item: Item) -> tuple[Any, ...]:
    assert isinstance(item, Command), item
    envelope = item.envelope
    said = (envelope.id, envelope.type, envelope.key, envelope.digest, envelope.trace)
    return (*said, item.data, item.target, item.expected_version)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command["type"])
@pytest.mark.parametrize("make", MAKERS)
def test_an_event_of_the_sdk_is_the_command_that_it_says(
    make: Any, command: dict[str, Any]
) -> None:
    plain = {name: value for name, value in command.items() if name != "tenant"}
    if "expectedversion" in plain:
        plain["expected_version"] = plain.pop("expectedversion")

    assert meaning(CODEC.decode(make(command))) == meaning(CODEC.decode(delivery(plain)))


def published(command: dict[str, Any], outcome: str) -> rabbitmq.RabbitMQMessage:
    """What a worker publishes for the command, as a subscriber with the SDK gets it."""
    item = CODEC.decode(delivery(command))
    settled: Settled
    if isinstance(item, Rejected):
        problem = item.problem
        answer = CODEC.problem_answer(item.envelope, outcome, problem, time=NOW)
        settled = DeadLetter(answer, problem.code, problem.detail, 1)
    else:
        row = {"id": 42, **ANN, "rating": None, "version": 1, "created_on": NOW}
        answer = CODEC.answer(item.envelope, outcome, row, time=NOW, subject="user/42")
        settled = Done(answer)
    event = Publications(TOPOLOGY).event(Job(item), settled)
    own = of(event)
    # The SDK says that headers are text; the worker's others are not its business.
    headers = {name: str(value) for name, value in (own.headers or {}).items()}
    return rabbitmq.RabbitMQMessage(headers, own.content_type, event.body)


def test_the_sdk_reads_the_event_of_what_was_done() -> None:
    event = rabbitmq.from_rabbitmq_event(published(CREATE, "user.created"))

    assert (event.get_type(), event.get_source()) == ("user.created", "/worker")
    assert (event.get_subject(), event.get_time()) == ("user/42", NOW)
    assert event.get_extension("commandid") == "c"
    assert event.get_extension("correlationid") == "c"
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["username"] == "ann"


@pytest.mark.parametrize("outcome", ["rejected", "failed"])
def test_the_sdk_reads_the_event_of_what_was_not(outcome: str) -> None:
    event = rabbitmq.from_rabbitmq_event(published({**CREATE, "data": {}}, outcome))

    assert event.get_type() == f"user.create.{outcome}"
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["code"] == "invalid"


def headers_of(prefix: str, **attributes: Any) -> dict[str, Any]:
    given = {"specversion": "1.0", "source": "/", "id": "c", "type": "user.update"} | attributes
    return {f"{prefix}{name}": value for name, value in given.items()}


def problem_of(came: Delivery) -> Rejected:
    item = CODEC.decode(came)
    assert_answerable(item, came)
    assert isinstance(item, Rejected), item
    return item


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff", b"7", b'{"a":1,"a":2}'])
def test_data_that_is_no_object_is_malformed_under_the_events_own_id(
    prefix: str, body: bytes
) -> None:
    other = problem_of(came(body + b" ", headers_of(prefix)))
    item = problem_of(came(body, headers_of(prefix)))

    assert (item.problem.code, item.envelope.id) == ("malformed", "c")
    assert item.envelope.type == "user.update"
    assert item.envelope.digest != other.envelope.digest


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("attributes", "pointer"),
    [
        ({"target": "nobody"}, "/target"),
        ({"target": "[1]"}, "/target"),
        ({"target": '{"id":1,"id":2}'}, "/target"),
        ({"target": "{" * 1_000}, "/target"),
        ({"target": 7}, "/target"),
        ({"target": {"id": 1, "username": "ann"}}, "/target"),
        ({"target": {"id": {"a": 1}}}, "/target"),
        ({"target": {"id": datetime(2026, 1, 1, tzinfo=UTC)}}, "/target"),
        ({"target": {"colour": 1}}, "/target/colour"),
        ({"expectedversion": "three"}, "/expectedversion"),
        ({"expectedversion": "0"}, "/expectedversion"),
        ({"expectedversion": "-1"}, "/expectedversion"),
        ({"expectedversion": "3.0"}, "/expectedversion"),
        ({"expectedversion": "9" * 10}, "/expectedversion"),
        ({"expectedversion": "\u0663"}, "/expectedversion"),
        ({"expectedversion": True}, "/expectedversion"),
        ({"expectedversion": 2**40}, "/expectedversion"),
        ({"expectedversion": 3, "expected_version": 4}, "/expectedversion"),
        ({"id": ""}, "/id"),
        ({"id": 7}, "/id"),
        ({"id": "a\nb"}, "/id"),
        ({"id": "a\x00b"}, "/id"),
        ({"source": "a\x00b"}, "/source"),
        ({"key": "a\x00b"}, "/key"),
        ({"key": 7}, "/key"),
        ({"Colour": "red"}, "/Colour"),
        ({"": "red"}, "/"),
        ({"type": bytearray(b"\xff")}, "/type"),
    ],
)
def test_each_attribute_that_is_wrong_is_pointed_at(
    prefix: str, attributes: dict[str, Any], pointer: str
) -> None:
    right = {"target": '{"id":1}'}
    headers = headers_of(prefix, **(right | attributes))
    item = problem_of(came(b'{"rating":1}', headers))

    assert pointer in [fault.pointer for fault in item.problem.errors]
    assert item.problem.code in ("invalid", "unknown_type")


def test_headers_of_structured_mode_only_repeat_the_body() -> None:
    headers = headers_of("cloudEvents:", id="another", type="order.delete")
    for content_type in ("application/cloudevents+json", "Application/CloudEvents+JSON; a=b"):
        item = CODEC.decode(came(json.dumps(CREATE).encode(), headers, content_type))
        assert isinstance(item, Command)
        assert (item.envelope.id, item.type) == ("c", "user.create")


def test_without_a_specversion_headers_are_headers() -> None:
    headers = headers_of("ce-")
    del headers["ce-specversion"]
    item = CODEC.decode(came(json.dumps(CREATE).encode(), headers, "application/json"))

    assert isinstance(item, Command)
    assert item.envelope.id == "c"


def test_of_two_prefixes_one_counts() -> None:
    """Else a sender could be told from another by each half of its readers."""
    headers = headers_of("ce-", id="other", tenant="eu") | headers_of(
        "cloudEvents:", target='{"id":1}'
    )
    item = CODEC.decode(came(b'{"rating":1}', headers))

    assert isinstance(item, Command)
    assert (item.envelope.id, item.target) == ("c", Target("id", 1))


@pytest.mark.parametrize("version", [3, 3.5, "3", None, 0, True])
@pytest.mark.parametrize("specversion", ["1.0", None])
def test_expectedversion_is_never_ignored(specversion: str | None, version: object) -> None:
    body = {**UPDATE, "expectedversion": version, "specversion": specversion}
    item = CODEC.decode(delivery(body))

    if version in (None, 3):
        assert isinstance(item, Command)
        assert item.expected_version == version
    else:
        assert isinstance(item, Rejected)
        assert [fault.pointer for fault in item.problem.errors] == ["/expectedversion"]


@pytest.mark.parametrize(("version", "other"), [(3, None), (None, 3), (3, 3), (3, 4)])
def test_the_version_has_one_name_at_a_time(version: int | None, other: int | None) -> None:
    item = CODEC.decode(delivery({**UPDATE, "expectedversion": version, "expected_version": other}))

    if version is None or other is None:
        assert isinstance(item, Command)
        assert item.expected_version == 3
    else:
        assert isinstance(item, Rejected)
        assert [fault.pointer for fault in item.problem.errors] == ["/expectedversion"]


json_texts = st.text(max_size=10) | st.sampled_from(['{"id":1}', "{", "3", "\x00", "null", "[]"])
values = (
    json_texts
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=4)
    | st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1))  # noqa: DTZ001
    | st.dictionaries(st.sampled_from(["id", "username", "a"]), json_texts | st.integers(0, 9))
    | st.lists(json_texts, max_size=2)
)
names = st.sampled_from(["id", "type", "target", "data", "expectedversion", "key", "time", "x1"])


@given(
    st.sampled_from(PREFIXES),
    st.dictionaries(names, values),
    st.sampled_from([b"", b"null", b"{", b'{"rating":1}', b'{"a":"\\u0000"}']) | st.binary(),
)
def test_whatever_the_attributes_are_there_is_an_answer(
    prefix: str, attributes: dict[str, Any], body: bytes
) -> None:
    headers = headers_of(prefix, **attributes)
    attributes_read = attributes_in(headers, "application/json")
    message = delivery(body, headers=headers, attributes=attributes_read)
    assert_answerable(CODEC.decode(message), message)


def letter_of(headers: dict[str, Any], body: bytes) -> StoredDeadLetter:
    own = Basic.Properties(headers=headers | {"x-code": "invalid"}, content_type="application/json")
    return StoredDeadLetter(1, body, own)


def sent_back(letter: StoredDeadLetter) -> Command:
    publication = letter.revived(TOPOLOGY, None)
    own = publication.copy_of
    assert isinstance(own, Basic.Properties)
    item = CODEC.decode(came(publication.body, dict(own.headers or {}), own.content_type))
    assert isinstance(item, Command)
    return item


HEADERS = headers_of("ce-", target='{"id": 1}', expectedversion="3", time="2026-01-01T00:00:00Z")


def test_a_dead_letter_in_binary_mode_is_sent_back_as_it_was() -> None:
    letter = letter_of(HEADERS | {"tenant": "eu"}, b'{"rating":1}')

    assert (letter.command_id, letter.command_type) == (None, "user.update")
    item = sent_back(letter)
    assert (item.envelope.id, item.target, item.expected_version) == ("c", Target("id", 1), 3)
    assert "ce-id" in item.envelope.delivery.headers


@pytest.mark.parametrize("body", [b'{"rating":"x"}', b""])
def test_one_that_is_changed_becomes_the_same_event_in_structured_mode(body: bytes) -> None:
    letter = letter_of(HEADERS | {"tenant": "eu"}, body)
    members = letter.members
    assert members is not None
    item = sent_back(letter.rewritten(members | {"data": {"rating": 2}}))

    assert (item.envelope.id, item.target, item.expected_version) == ("c", Target("id", 1), 3)
    assert item.data.rating == 2
    assert item.envelope.delivery.headers == {"tenant": "eu", "x-redrive": True}
    assert item.envelope.delivery.attributes is None
