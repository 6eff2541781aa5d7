"""Messages made to break something: their bodies, their AMQP properties, the bytes of those."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from dev.fuzz.documents import READ, REFUSED, UNSTORABLE, within
from worker.broker.protocol.cloudevents import PREFIXES

MOST_SHORT_BYTES = 255
"""The longest string that an AMQP property can be."""


@dataclass(frozen=True)
class Hostile:
    """One message; `header` is the payload of its content header frame."""

    name: str
    body: bytes
    header: bytes
    marked: bool = True
    """Whether its correlation id is that of `mark`, so that its answer can be told by it."""


def mark(name: str) -> str:
    """The correlation id of a message; never twice the same, if its name is not."""
    return f"fuzz {name}"[:MOST_SHORT_BYTES]


def hostile(name: str, body: bytes | dict[str, Any], **properties: Any) -> Hostile:
    """A message with these properties; marked, unless it has a correlation id of its own."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    marked = "correlation_id" not in properties
    if marked:
        properties["correlation_id"] = mark(name)
    basic = Basic.Properties(**{"delivery_mode": 2, **properties})
    header = ContentHeader(body_size=len(content), properties=basic).marshal()
    return Hostile(name, content, header, marked)


def raw(name: str, flags: int, properties: bytes) -> Hostile:
    """A message whose properties are these bytes; only its body tells which it was."""
    body = json.dumps(create(name)).encode()
    return Hostile(name, body, struct.pack(">HHQH", 60, 0, len(body), flags) + properties, False)


def create(name: str, **data: Any) -> dict[str, Any]:
    """A command that creates a user of that name; nothing is wrong with it."""
    user = {"username": name[:150], "email": f"{_word(name)}@example.com"}
    return {"type": "user.create", "data": user | data}


def _word(name: str) -> str:
    return f"u{zlib.crc32(name.encode()):08x}"


def bodies() -> Iterator[Hostile]:
    """Every JSON text of the collection as the body, and as a member of a command."""
    for number, document in enumerate([*READ, *REFUSED, *UNSTORABLE]):
        yield hostile(f"body {number}", document)
        yield hostile(f"member {number}", within(document).replace(b'"u', b'"u%d' % number))


def properties() -> Iterator[Hostile]:
    """The same texts, as far as they fit, wherever a publisher can put a text."""
    for number, document in enumerate([*READ, *REFUSED, *UNSTORABLE]):
        text = document[:MOST_SHORT_BYTES].decode("utf-8", "replace")
        while len(text.encode()) > MOST_SHORT_BYTES:
            text = text[:-1]
        for place in ("message_id", "message_type", "reply_to", "content_encoding", "content_type"):
            name = f"{place} {number}"
            yield hostile(name, create(name), **{place: text})
        name = f"correlation_id {number}"
        body = create(name)
        yield hostile(name, body, correlation_id=text)
        name = f"headers {number}"
        headers = {"traceparent": text, "tracestate": text, "x-command-id": text, text[:40]: [text]}
        yield hostile(name, create(name), headers=headers)


def undecodable() -> Iterator[Hostile]:
    """Content headers that the broker passes on, and that pamqp cannot read."""
    for number, document in enumerate(REFUSED):
        # Text that is not UTF-8, or was cut within a character.
        short = document[:60]
        try:
            short.decode()
        except UnicodeDecodeError:
            for flag in (0x0400, 0x0200, 0x0080, 0x0020):
                yield raw(f"raw {flag:x} {number}", flag, bytes((len(short),)) + short)
    yield raw("timestamp out of range", 0x0040, struct.pack(">Q", 2**64 - 1))
    yield raw("timestamp past 9999", 0x0040, struct.pack(">Q", 253_402_300_800_000))
    yield raw("header name not UTF-8", 0x2000, _table(b"\x01\xfft\x01"))
    yield raw("header nested deep", 0x2000, _nested(2_000))
    yield raw("date in a header", 0x2000, _table(b"\x01aT" + struct.pack(">Q", 2**64 - 1)))


def _table(fields: bytes) -> bytes:
    return struct.pack(">I", len(fields)) + fields


def _nested(depth: int) -> bytes:
    table = _table(b"")
    for _ in range(depth):
        table = _table(b"\x01aF" + table)
    return table


def attacks(own_queues: tuple[str, ...]) -> Iterator[Hostile]:
    """Every case of the list of bad inputs that the collection of texts does not hold."""
    yield from _sizes()
    yield from _members()
    yield from _envelopes(own_queues)
    yield from _binary_events()


def _sizes() -> Iterator[Hostile]:
    spaces = b" " * 1_048_576
    for name, size in (("1 MiB", 1_048_576), ("1 MiB and a byte", 1_048_577), ("16 MiB", 1 << 24)):
        yield hostile(f"{name} of spaces", (spaces * 17)[:size])
    command = create("padded")
    padding = 1_048_576 - len(json.dumps(command))
    yield hostile("a command of 1 MiB", json.dumps(command).encode() + b" " * padding)
    for count in (60_000, 1_000_000):
        keys = ",".join(f'"k{number}":0' for number in range(count))
        yield hostile(f"{count} keys", f'{{"type":"user.create","data":{{{keys}}}}}'.encode())
    yield hostile("a batch of nothing", b"[]")
    yield hostile(
        "a giant batch", json.dumps([create(f"batch {n}") for n in range(9_000)]).encode()
    )
    yield hostile("nested lists", b"[" * 100_000 + b"]" * 100_000)
    for name, packed in (
        ("gzip", gzip.compress(spaces * 16)),
        ("deflate", zlib.compress(spaces * 16)),
        ("zstd", b"\x28\xb5\x2f\xfd" + b"\x00" * 20),
    ):
        yield hostile(f"{name} bomb, said", packed, content_encoding=name)
        yield hostile(f"{name} bomb, unsaid", packed)
        yield hostile(f"{name} said of plain text", create(name), content_encoding=name)


def _members() -> Iterator[Hostile]:
    for number, id_ in enumerate(_IDS):
        yield hostile(f"id {number}", create(f"id {number}") | {"id": id_})
    for number, text in enumerate(_TEXTS):
        yield hostile(f"id of text {number}", create(f"id of text {number}") | {"id": text})
        yield hostile(f"type {number}", create(f"type {number}") | {"type": text})
        yield hostile(f"key {number}", create(f"key {number}") | {"key": text})
        yield hostile(f"name {number}", create(text))
        yield hostile(f"address {number}", create(f"address {number}", email=text))
        yield hostile(f"field {number}", create(f"field {number}", **{text: 1}))
        yield hostile(f"member named {number}", create(f"member named {number}") | {text: 1})
        target = {"type": "user.update", "target": {"username": text}, "data": {"rating": 1}}
        yield hostile(f"target {number}", target)
        yield hostile(f"target field {number}", target | {"target": {text: 1}})
    for number, value in enumerate(_VALUES):
        yield hostile(f"rating {number}", create(f"rating {number}", rating=value))
        yield hostile(f"username {number}", create(f"u{number}", username=value))
        yield hostile(f"data {number}", {"type": "user.create", "data": value})
        for type_ in ("user.delete", "order.delete"):
            yield hostile(f"{type_} {number}", {"type": type_, "target": {"id": value}})
        order = {"type": "order.create", "data": {"user_id": value}}
        yield hostile(f"order of {number}", order)
        update = {"type": "user.update", "target": {"id": 1}, "data": {"rating": 1}}
        yield hostile(f"version {number}", update | {"expected_version": value})
        yield hostile(f"specversion {number}", create(f"spec {number}") | {"specversion": value})


def _envelopes(own_queues: tuple[str, ...]) -> Iterator[Hostile]:
    for queue in (*own_queues, "amq.gen-nobody", "amq.rabbitmq.trace", "x" * 255):
        yield hostile(f"reply to {queue}", create(f"reply to {queue}"), reply_to=queue)
    for number, headers in enumerate(_FORGED):
        # A command that is not usable, so that they come to the dead letters too.
        yield hostile(f"forged {number}", b"forged %d" % number, headers=headers)
        yield hostile(f"forged, well {number}", create(f"forged {number}"), headers=headers)
    for number, type_ in enumerate(("", "text/plain", "application/x-protobuf", "a" * 255, "\x00")):
        yield hostile(f"content type {number}", create(f"content {number}"), content_type=type_)
    yield hostile("not persistent", create("not persistent"), delivery_mode=1)
    yield hostile("priority", create("priority"), priority=255)
    yield hostile("dated", create("dated"), timestamp=datetime(1970, 1, 1, tzinfo=UTC))
    for number, text in enumerate(_TEXTS):
        short = text[:60]
        for place in ("message_id", "message_type", "reply_to", "content_encoding", "app_id"):
            name = f"{place} of text {number}"
            yield hostile(name, create(name), **{place: short})
        name = f"correlated {number}"
        yield hostile(name, create(name), correlation_id=short)


def _binary_events() -> Iterator[Hostile]:
    """CloudEvents whose attributes stand in headers: each text as each of them."""
    for number, text in enumerate(_TEXTS):
        prefix = PREFIXES[number % len(PREFIXES)]
        for attribute in ("id", "type", "target", "expectedversion", "key", "time", text[:40]):
            name = f"{prefix} {attribute} {number}"
            event = {"specversion": "1.0", "source": "/", "type": "user.create"}
            headers = {prefix + it: value for it, value in event.items()}
            headers[prefix + attribute] = text[:1_000]
            yield hostile(name, create(name)["data"], headers=headers)


_TEXTS = (
    "",
    " ",
    "x ",
    " x",
    "a\u00a0",
    "user.create ",
    "us\u0435r.create",  # a Cyrillic е
    "user.create\u200b",
    "USER.CREATE",
    "user.__class__",
    "*.#",
    "line\r\nbreak",
    "\r\n\r\nHTTP/1.1 200 OK",
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "\x07\x08\x7f",
    "\u202eesrever",
    "\u2028",
    "nul\x00",
    "'; DROP TABLE users; --",
    '" OR 1=1 --',
    "%s%n%x{0}{__class__}",
    "${jndi:ldap://x/a}",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "a@b.de\nBcc: c@d.de",
    "\ufeffx",
    "🏴\U000e0067\U000e007f",
    "Z\u0310\u0311\u0312\u0313\u0314\u0315" * 12,
    "x" * 151,
    "x" * 70_000,
)
_IDS: tuple[Any, ...] = (
    *(None, "", " ", 0, -1, True, 1.5, [], {}, ["x"], "x" * 200, "x" * 201, "x" * 100_000),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.0, 1.5, -0.0, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64),
    *(10**300, 10**4_000, 1e308, 5e-324, "1", "", "x", [], [1], {}, {"id": 1}),
    *("9999-12-31", "0000-00-00", [None] * 1_000, {"a": {"b": [{}]}}),
)
_FORGED: tuple[dict[str, Any], ...] = (
    {"x-delivery-count": 1_000_000},
    {"x-delivery-count": "many"},
    {"x-attempts": 99, "x-code": "failed", "x-detail": "forged", "x-event-id": "forged"},
    {"x-death": [{"count": 20, "reason": "delivery_limit", "queue": "q", "time": None}]},
    {"x-death": "no list"},
    {"x-first-death-queue": "q", "x-first-death-reason": "rejected", "x-first-death-exchange": ""},
    {"x-unreadable-" + "0" * 32: "forged"},
    {"x-stream-offset": 0, "x-acquired-count": 9},
    {"commandid": "forged", "x-replayed": True},
    {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-00"},
    {"traceparent": 7, "tracestate": ["x"]},
    {f"h{number}": number for number in range(3_000)},
    {"long": "x" * 100_000},
    {"bytes": bytearray(b"\xff\x00"), "list": [[[[]]]], "table": {"a": {"b": None}}},
    {"cc": ["nowhere"], "Cc": "x"},
)
