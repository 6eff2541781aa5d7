"""No frame that a publisher can cause may cut the connection."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from typing import Any

import pamqp.frame
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from worker.broker.protocol.frame_reader import (
    UNREADABLE_HEADER,
    Intake,
    mend_delivery,
    mend_header,
)

FRAME_END = b"\xce"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END


def header(flags: int, properties: bytes, *, body_size: int = 17, channel: int = 3) -> bytes:
    return frame(2, channel, struct.pack(">HHQH", 60, 0, body_size, flags) + properties)


def table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def nested_tables(depth: int) -> bytes:
    inner = table(b"")
    for _ in range(depth):
        inner = table(b"\x01aF" + inner)
    return inner


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def decoded(raw: bytes) -> tuple[int, ContentHeader]:
    consumed, channel, found = pamqp.frame.unmarshal(raw)
    assert consumed == len(raw)
    assert isinstance(found, ContentHeader)
    return channel, found


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))
values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | words
    | moments
    | st.none()
    | st.floats(width=32, allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
properties = st.builds(
    Basic.Properties,
    content_type=st.none() | words,
    content_encoding=st.none() | words,
    headers=st.none() | st.dictionaries(words, values, max_size=4),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | words,
    reply_to=st.none() | words,
    expiration=st.none() | words,
    message_id=st.none() | words,
    timestamp=st.none() | moments,
    message_type=st.none() | words,
    user_id=st.none() | words,
    app_id=st.none() | words,
)


@given(properties, st.integers(0, 2**63), st.integers(1, 65_535))
def test_a_header_that_can_be_decoded_passes_unchanged(
    given_properties: Basic.Properties, body_size: int, channel: int
) -> None:
    content = ContentHeader(body_size=body_size, properties=given_properties)
    raw = pamqp.frame.marshal(content, channel)

    assert mend_header(raw, channel) == raw


UNDECODABLE = {
    "content type that is not UTF-8": header(0x8000, short(b"\xff\xfe")),
    "message id that is not UTF-8": header(0x0080, short(b"\xc3\x28")),
    "timestamp out of range": header(0x0040, struct.pack(">Q", 2**63)),
    "timestamp past the year 9999": header(0x0040, struct.pack(">Q", 253_402_300_800_000)),
    "table nested 2,000 deep": header(0x2000, nested_tables(2_000)),
    "table nested 20,000 deep": header(0x2000, nested_tables(20_000)),
    "unknown field type": header(0x2000, table(b"\x01a?\x00")),
    "table longer than the frame": header(0x2000, struct.pack(">I", 9_999) + b"\x01a"),
    "name longer than its table": header(0x2000, table(b"\x7fa")),
    "name that is not UTF-8": header(0x2000, table(b"\x01\xfft\x01")),
    "truncated table": header(0x2000, b"\x00\x00"),
    "truncated timestamp": header(0x0040, b"\x00\x00"),
    "timestamp within a table out of range": header(
        0x2000, table(b"\x01aT" + struct.pack(">Q", 2**64 - 1))
    ),
}


BROKEN = {"table longer than the frame", "truncated table", "truncated timestamp"}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_a_header_that_cannot_be_decoded_comes_out_decodable(name: str) -> None:
    """What one property costs is the business of `test_content_header.py`."""
    raw = UNDECODABLE[name]
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the library makes of it
        pamqp.frame.unmarshal(raw)
    channel, found = decoded(mend_header(raw, 3))

    assert (channel, found.body_size) == (3, 17)
    headers = found.properties.headers or {}
    if name in BROKEN:
        assert "cannot be decoded" in str(headers[UNREADABLE_HEADER])
    else:
        assert not headers


@pytest.mark.parametrize("depth", [1, 100, *range(400, 560, 5)])
def test_tables_of_any_depth_come_out_decodable(depth: int) -> None:
    _, found = decoded(mend_header(header(0x2000, nested_tables(depth)), 3))

    assert found.body_size == 17


@settings(phases=[Phase.generate])
@given(st.integers(0, 0xFFFF), st.binary(max_size=60), st.integers(0, 2**63))
def test_any_header_at_all_comes_out_decodable(flags: int, rest: bytes, body_size: int) -> None:
    raw = header(flags, rest, body_size=body_size)
    channel, found = decoded(mend_header(raw, 3))

    assert (channel, found.body_size) == (3, body_size)


@settings(phases=[Phase.generate])  # to make a failure smaller takes longer than it helps
@given(properties, st.data())
def test_a_damaged_header_comes_out_decodable(
    given_properties: Basic.Properties, data: st.DataObject
) -> None:
    content = ContentHeader(body_size=5, properties=given_properties)
    payload = bytearray(pamqp.frame.marshal(content, 3)[7:-1])
    for _ in range(data.draw(st.integers(1, 3))):
        if len(payload) > 14:
            payload[data.draw(st.integers(14, len(payload) - 1))] = data.draw(st.integers(0, 255))
    del payload[data.draw(st.integers(14, len(payload))) :]
    _, found = decoded(mend_header(frame(2, 3, bytes(payload)), 3))

    assert found.body_size == 5


def deliver(
    routing_key: bytes, *, exchange: bytes = b"worker.commands", tag: int = 7, again: int = 0
) -> bytes:
    arguments = short(b"ctag1.x") + struct.pack(">QB", tag, again)
    payload = struct.pack(">HH", 60, 60) + arguments + short(exchange) + short(routing_key)
    return frame(1, 4, payload)


def delivered(raw: bytes) -> Basic.Deliver:
    consumed, channel, found = pamqp.frame.unmarshal(raw)
    assert (consumed, channel) == (len(raw), 4)
    assert isinstance(found, Basic.Deliver)
    return found


@given(words, words, st.integers(1, 2**63 - 1), st.integers(0, 1))
def test_a_delivery_that_can_be_decoded_passes_unchanged(
    routing_key: str, exchange: str, tag: int, again: int
) -> None:
    raw = deliver(routing_key.encode(), exchange=exchange.encode(), tag=tag, again=again)

    assert mend_delivery(raw) is raw
    assert delivered(raw).routing_key == routing_key


@given(st.binary(max_size=255), st.integers(1, 2**63 - 1))
def test_any_routing_key_comes_out_decodable(routing_key: bytes, tag: int) -> None:
    found = delivered(mend_delivery(deliver(routing_key, tag=tag, again=1)))

    assert (found.delivery_tag, found.redelivered) == (tag, True)
    assert (found.consumer_tag, found.exchange) == ("ctag1.x", "worker.commands")
    try:
        assert found.routing_key == routing_key.decode()
    except UnicodeDecodeError:
        assert found.routing_key == ""


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_exchange_comes_out_decodable(exchange: bytes, routing_key: bytes) -> None:
    found = delivered(mend_delivery(deliver(routing_key, exchange=exchange)))

    assert found.delivery_tag == 7


async def read_all(raw: bytes) -> list[Any]:
    """What aiormq reads: a byte, six more, then the rest of the frame."""
    inner = asyncio.StreamReader()
    inner.feed_data(raw)
    inner.feed_eof()
    reader = Intake(inner)
    frames = []
    while not reader.at_eof():
        start = await reader.readexactly(1) + await reader.readexactly(6)
        (size,) = struct.unpack(">I", start[3:])
        frames.append(pamqp.frame.unmarshal(start + await reader.readexactly(size + 1))[2])
    return frames


async def test_a_stream_of_frames_is_read_whole_and_mended() -> None:
    raw = (
        deliver(b"\xff")
        + header(0x2000, nested_tables(2_000))
        + frame(3, 4, b"x" * 17)
        + frame(8, 0, b"")
        + deliver(b"fine")
    )
    bad, content, body, _, good = await read_all(raw)

    assert (bad.routing_key, good.routing_key) == ("", "fine")
    assert content.body_size == 17
    assert body.value == b"x" * 17


async def test_a_stream_that_ends_within_a_frame_is_an_end() -> None:
    for cut in (1, 5, 8, 20):
        with pytest.raises(asyncio.IncompleteReadError):
            await read_all(deliver(b"key")[:cut])


async def test_a_frame_of_the_body_is_never_taken_for_a_delivery() -> None:
    (body,) = await read_all(frame(3, 4, b"\x00\x3c\x00\x3c\xff\xff"))

    assert body.value == b"\x00\x3c\x00\x3c\xff\xff"
