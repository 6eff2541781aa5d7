"""Messages of unusual forms, by way of a real broker, to what becomes of them in the end."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from cloudevents.core.bindings import rabbitmq
from cloudevents.core.v1.event import CloudEvent
from pamqp.commands import Basic

from dev.benchmarks.amqp import open_link
from tests.support.commandline import CommandLine
from tests.support.harness import Harness, Message
from worker.broker.protocol.cloudevents import PREFIXES

ANN = {"username": "ann", "email": "ann@example.com"}
YEAR_1 = struct.pack(">Q", 2**64 - 62_135_596_800)


async def test_a_null_id_leaves_it_to_the_property_which_id_it_has(harness: Harness) -> None:
    async with harness.worker():
        for _ in range(2):
            body = {"id": None, "type": None, "data": ANN, "specversion": None}
            await harness.publish(body, message_id="m", type="user.create")
        first, again = await harness.event("m"), await harness.event("m", number=2)

    assert first.routing_key == "user.created"
    assert again.body == first.body
    assert len(await harness.rows("SELECT * FROM users")) == 1


async def test_what_cannot_be_stored_is_answered_under_its_own_id(harness: Harness) -> None:
    async with harness.worker():
        body = {"id": "own", "type": "user.create", "data": {**ANN, "username": "a\x00\ud800"}}
        await harness.publish(body, message_id="not this one")
        event = await harness.event("own")
        (letter,) = await harness.dead_letters(1)

    assert event.data["code"] == letter.headers["x-code"] == "invalid"
    assert [fault["pointer"] for fault in event.data["errors"]] == ["/data/username"]
    assert letter.headers["x-command-id"] == "own"


async def ask_as_event(harness: Harness, prefix: str, data: Any, **attributes: str) -> Message:
    """Send an event in binary mode, as the SDK writes it but for the prefix; the answer."""
    made = rabbitmq.to_binary_event(CloudEvent({"source": "/shop", **attributes}, data))
    headers = {name.replace("ce-", prefix, 1): value for name, value in made.headers.items()}
    await harness.publish(made.body, headers=headers)
    answer = await harness.event(attributes["id"])
    event = rabbitmq.from_rabbitmq_event(
        rabbitmq.RabbitMQMessage({}, answer.properties.content_type, answer.body)
    )
    assert event.get_extension("commandid") == attributes["id"]
    return answer


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_cloudevents_in_binary_mode_are_commands(harness: Harness, prefix: str) -> None:
    target = json.dumps({"username": "ann"})
    async with harness.worker():
        created = await ask_as_event(harness, prefix, ANN, id="1", type="user.create")
        update = {"type": "user.update", "target": target}
        stale = await ask_as_event(
            harness, prefix, {"rating": 1}, id="2", expectedversion="7", **update
        )
        updated = await ask_as_event(
            harness, prefix, {"rating": 2}, id="3", expectedversion="1", **update
        )
        deleted = await ask_as_event(
            harness, prefix, None, id="4", type="user.delete", target=target
        )

    assert created.routing_key == "user.created"
    assert stale.data["code"] == "version_mismatch"
    assert (updated.routing_key, updated.data["rating"]) == ("user.updated", 2)
    assert deleted.routing_key == "user.deleted"


def with_bad_properties(body: bytes, **good: Any) -> bytes:
    """A content header with a time of year 1, and a header that cannot be decoded."""
    bad_field = b"\x03badT" + YEAR_1
    table = Basic.Properties().encode_property("headers", good.pop("headers"))[4:] + bad_field
    parts = {"headers": struct.pack(">I", len(table)) + table, "timestamp": YEAR_1}
    parts |= {name: Basic.Properties().encode_property(name, it) for name, it in good.items()}
    flags = sum(Basic.Properties.flags[name] for name in parts)
    start = struct.pack(">HHQH", 60, 0, len(body), flags)
    return start + b"".join(parts[name] for name in Basic.Properties.flags if name in parts)


async def test_a_property_that_cannot_be_decoded_costs_only_itself(
    harness: Harness, cli: CommandLine
) -> None:
    usable, unusable = json.dumps({"data": ANN}).encode(), b'{"data": {"username": "bob"}}'
    good = {"message_type": "user.create", "delivery_mode": 2, "headers": {"tenant": "eu"}}
    async with harness.worker():
        async with open_link(harness.settings.broker.url.get_secret_value()) as link:
            contents = [
                (with_bad_properties(body, message_id=id_, app_id="till", **good), body)
                for id_, body in (("well", usable), ("ill", unusable))
            ]
            link.send_raw(f"{harness.settings.namespace}.commands", "any", contents)
            await link.confirmed()
        created, invalid = await harness.event("well"), await harness.event("ill")
        shown = await cli("dead-letters", "show", "ill")
        await cli("dead-letters", "redrive", "ill", "--set", "data.email=bob@example.com")
        mended = await harness.event("ill", number=2)

    assert (created.routing_key, invalid.data["code"]) == ("user.created", "invalid")
    assert shown.line["headers"]["tenant"] == "eu"
    properties = shown.line["properties"]
    assert (properties["message_id"], properties["app_id"]) == ("ill", "till")
    assert mended.routing_key == "user.created"
