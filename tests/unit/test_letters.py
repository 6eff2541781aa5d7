"""A dead letter that is sent back is the command that it was."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.support.fakes import make_codec
from worker.broker.client.dead_letter import StoredDeadLetter
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.subscription import read_delivery
from worker.broker.protocol.properties import copy_of
from worker.broker.topology import Topology
from worker.core.messages import Command, Item
from worker.settings.settings import BrokerSettings

TOPOLOGY = Topology("worker", BrokerSettings())
CODEC = make_codec()
BODY = b'{"data":{"username":"ann","email":"ann@example.com"}}'
ADDED: dict[str, Any] = {
    "x-code": "failed",
    "x-detail": "why",
    "x-attempts": 5,
    "x-first-time": "2026-01-01T00:00:00Z",
    "x-last-time": "2026-01-01T00:00:00Z",
    "x-event-id": "e",
    "x-command-id": "c1",
    "x-command-type": "user.create",
    "x-user-id": None,
}


def revived(body: bytes = BODY, **properties: Any) -> Basic.Properties:
    letter = StoredDeadLetter(1, body, Basic.Properties(**properties))
    sent = letter.revived(TOPOLOGY, None)
    assert isinstance(sent.copy_of, Basic.Properties)
    return sent.copy_of


def read(properties: Basic.Properties, body: bytes = BODY) -> Item:
    header = ContentHeader(body_size=len(body), properties=properties).marshal()
    window = cast(AckWindow, None)
    return CODEC.decode(
        read_delivery(1, redelivered=False, header=header, body=body, window=window)
    )


def test_it_has_its_id_and_type_again_where_its_properties_were_lost() -> None:
    item = read(revived(headers=ADDED))

    assert isinstance(item, Command)
    assert (item.envelope.id, item.type) == ("c1", "user.create")


def test_what_it_came_with_stays() -> None:
    sent = revived(headers={**ADDED, "tenant": "eu"}, message_id="m", message_type="t", app_id="a")

    assert (sent.message_id, sent.message_type, sent.app_id) == ("m", "t", "a")
    assert sent.headers == {"tenant": "eu", "x-redrive": True}


@pytest.mark.parametrize("id_", [None, 7, "ä" * 128])
def test_what_cannot_stand_in_a_property_is_left_to_the_body(id_: object) -> None:
    assert not revived(headers={**ADDED, "x-command-id": id_}).message_id


def test_headers_that_leave_no_room_cost_it_neither_id_nor_type() -> None:
    original = Basic.Properties(headers={"long": "x" * 99_999, "tenant": "eu"}, message_id="m")
    letter: dict[str, Any] = dict(copy_of(original, ADDED, limit=50_000))
    sent = revived(**letter)

    assert (sent.message_id, sent.message_type) == ("m", "user.create")
    assert sent.headers == {"tenant": "eu", "x-redrive": True}


DEATH = {"queue": "worker.commands", "reason": "delivery_limit", "count": 1}


def sender_of(headers: dict[str, Any], user_id: str | None = None) -> str | None:
    own = Basic.Properties(headers=headers, user_id=user_id)
    return StoredDeadLetter(1, BODY, own, commands="worker.commands").sender


def test_a_letter_names_who_sent_it_first() -> None:
    assert sender_of({**ADDED, "x-user-id": "shop"}) == "shop"
    assert sender_of({**ADDED, "x-user-id": "shop", "x-death": [{"queue": "shop.retry"}]}) == "shop"
    assert sender_of(ADDED) is None
    assert sender_of({"x-death": [DEATH]}, user_id="shop") == "shop"
    sent = revived(headers={**ADDED, "x-user-id": "shop"})
    assert (sent.headers or {})["x-user-id"] == "shop"
    assert not sent.user_id


@pytest.mark.parametrize("queue", ["worker.commands", "worker.commands.7"])
def test_what_the_broker_moved_cannot_say_what_only_the_worker_does(queue: str) -> None:
    forged = {**ADDED, "x-user-id": "admin", "x-death": [DEATH | {"queue": queue}]}
    own = Basic.Properties(headers=forged, message_id="m")
    letter = StoredDeadLetter(1, BODY, own, commands="worker.commands")

    assert letter.sender is None
    assert (letter.command_id, letter.command_type) == ("m", None)
    assert letter.code == "delivery-limit"
    sent = letter.revived(TOPOLOGY, None).copy_of
    assert isinstance(sent, Basic.Properties)
    assert sent.headers == {"x-redrive": True}
    assert not sent.message_type
