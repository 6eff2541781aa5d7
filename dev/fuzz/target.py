"""What the coverage-guided fuzzer does with each input: make a message of it, decode, check.

An input is one message. Its first byte says whether a content header comes along: if so, two bytes
of its length and its payload follow; the rest is the body. It takes the way of a delivery.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from dev.fuzz import hostile
from dev.fuzz.answerable import CODEC, assert_answerable
from dev.fuzz.documents import READ, REFUSED, UNSTORABLE, within
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.subscription import read_delivery
from worker.broker.protocol.content_header import size_of
from worker.broker.protocol.properties import copy_of
from worker.core.messages import Command, Item, Rejected

SMALLEST_PAYLOAD = 4_096 - 8
"""Bytes in a frame that every peer has room for (AMQP 0-9-1, section 4.2.3)."""
PLAIN, WITH_HEADER = b"\0", b"\1"
_NO_HEADER = ContentHeader(body_size=0, properties=Basic.Properties()).marshal()
_window: Any = AckWindow.__new__(AckWindow)  # only settled deliveries use it


def packed(body: bytes, header: bytes | None = None) -> bytes:
    """The input for a message."""
    if header is None:
        return PLAIN + body
    return WITH_HEADER + len(header).to_bytes(2, "big") + header + body


def seeds() -> Iterator[bytes]:
    """Messages to begin with: short ones of every kind that the other tests send."""
    for document in (*READ, *REFUSED, *UNSTORABLE):
        if len(document) < 1_000:
            yield packed(within(document))
    yield from (packed(body) for body in VALID)
    for message in (*hostile.properties(), *hostile.undecodable(), *hostile.attacks(())):
        if len(message.header) + len(message.body) < 1_000:
            yield packed(message.body, message.header)


VALID = (
    b'{"id":"b","type":"user.update","target":{"id":42},"data":{"rating":null},"key":"k"}',
    b'{"id":"c","type":"user.delete","target":{"username":"ann"},"expected_version":3}',
    b'{"id":"d","type":"order.create","data":{"user":{"email":"a@b.de"},"is_completed":true}}',
    b'{"specversion":"1.0","source":"/","type":"order.delete","target":{"id":1},"tenant":"eu"}',
)


def check(data: bytes) -> None:
    """Raise `AssertionError` if what becomes of the message is not what it should be."""
    header, body = _NO_HEADER, data[1:]
    if data[:1] == WITH_HEADER:
        size = int.from_bytes(data[1:3], "big")
        header, body = data[3 : 3 + size], data[3 + size :]
    delivery = read_delivery(1, redelivered=True, header=header, body=body, window=_window)
    item = CODEC.decode(delivery)
    assert_answerable(item, delivery)
    _agrees_with_json(item, body, header)
    copied = copy_of(header, {"x-code": "malformed"}, limit=SMALLEST_PAYLOAD)
    assert copied.headers is not None
    assert copied.headers["x-code"] == "malformed"
    assert size_of(copied) <= SMALLEST_PAYLOAD


def _agrees_with_json(item: Item, body: bytes, header: bytes) -> None:
    """What was read is what `json` reads, and means the same however it is written."""
    if isinstance(item, Rejected) and item.problem.code in ("malformed", "too_large"):
        return
    members = json.loads(body.decode())
    assert isinstance(members, dict)
    shuffled = dict(sorted(members.items(), reverse=True))
    written = json.dumps(shuffled, indent=1).encode()
    again = CODEC.decode(
        read_delivery(1, redelivered=False, header=header, body=written, window=_window)
    )
    assert type(again) is type(item)
    # One that names no member has no meaning but its bytes.
    assert not members or again.envelope.digest == item.envelope.digest
    for name in ("id", "type", "key", "correlation_id", "reply_to", "trace"):
        assert getattr(again.envelope, name) == getattr(item.envelope, name)
    if isinstance(item, Command) and isinstance(again, Command):
        assert (again.data, again.target) == (item.data, item.target)
        assert again.expected_version == item.expected_version
