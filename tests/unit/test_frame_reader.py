"""Deliveries taken out of the stream of frames, and their properties out of the bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pamqp.frame
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from worker.broker.protocol import properties
from worker.broker.protocol.frame_reader import ConfirmSink, Intake

texts = st.text(max_size=20).filter(lambda text: len(text.encode()) <= 255)
short = st.none() | texts.filter(bool)
values = st.one_of(texts, st.integers(-(2**31), 2**31), st.booleans())
all_properties = st.builds(
    Basic.Properties,
    content_type=short,
    content_encoding=short,
    headers=st.none() | st.dictionaries(texts.filter(bool), values, max_size=4),
    delivery_mode=st.sampled_from((None, 1, 2)),
    priority=st.none() | st.integers(0, 255),
    correlation_id=short,
    reply_to=short,
    expiration=short,
    message_id=short,
    timestamp=st.none() | st.just(datetime(2026, 11, 23, tzinfo=UTC)),
    message_type=short,
    user_id=short,
    app_id=short,
)


@given(all_properties)
def test_properties_are_read_as_pamqp_reads_them(given_properties: Basic.Properties) -> None:
    raw = ContentHeader(body_size=3, properties=given_properties).marshal()
    found = properties.read(raw)
    header = ContentHeader()
    header.unmarshal(raw)
    expected = header.properties

    assert found.unreadable is None
    for name in ("content_encoding", "correlation_id", "reply_to", "message_id"):
        assert getattr(found, name) == (getattr(expected, name) or None)
    assert found.type == (expected.message_type or None)
    assert found.headers == (expected.headers or {})
    assert properties.all_of(raw) == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_said_to_be_unreadable(raw: bytes) -> None:
    found = properties.read(raw)

    assert found.unreadable is None or found.unreadable.isprintable()
    assert isinstance(properties.all_of(raw), Basic.Properties)


@dataclass
class Taken:
    deliveries: list[tuple[int, bool, bytes]] = field(default_factory=list)

    def __call__(
        self, tag: int, redelivered: bool, routing_key: bytes, header: bytes, body: bytes
    ) -> None:
        assert routing_key == b"k"
        assert properties.read(header).message_id == f"m{tag}"
        self.deliveries.append((tag, redelivered, body))


def delivery(channel: int, consumer: str, tag: int, pieces: list[bytes]) -> list[bytes]:
    own = Basic.Properties(message_id=f"m{tag}")
    size = sum(len(piece) for piece in pieces)
    return [
        pamqp.frame.marshal(Basic.Deliver(consumer, tag, bool(tag % 2), "e", "k"), channel),
        pamqp.frame.marshal(ContentHeader(body_size=size, properties=own), channel),
        *(pamqp.frame.marshal(ContentBody(piece), channel) for piece in pieces),
    ]


async def read_frames(intake: Intake) -> list[Any]:
    """What is left for aiormq, read as it reads."""
    frames: list[Any] = []
    while True:
        try:
            start = await intake.readexactly(1) + await intake.readexactly(6)
            rest = await intake.readexactly(int.from_bytes(start[3:], "big") + 1)
        except asyncio.IncompleteReadError:
            return frames
        frames.append(pamqp.frame.unmarshal(start + rest)[2])


pieces = st.lists(st.binary(min_size=1, max_size=30), max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from(("ours", "theirs")), pieces), max_size=6),
    st.integers(1, 50),
    st.randoms(use_true_random=False),
)
async def test_our_deliveries_are_taken_and_all_else_passes(
    sent: list[tuple[str, list[bytes]]], chunk: int, chosen: Any
) -> None:
    ours, theirs, stream = [], 0, b""
    for tag, (consumer, body) in enumerate(sent, start=1):
        frames = delivery(1, consumer, tag, body)
        if consumer == "ours":
            ours.append((tag, bool(tag % 2), b"".join(body)))
        else:
            theirs += len(frames)
        for frame in frames:
            # Between the frames of one channel may come those of another.
            if chosen.random() < 0.3:
                stream += pamqp.frame.marshal(Heartbeat(), 0)
                theirs += 1
            stream += frame
    reader = asyncio.StreamReader()
    intake, taken = Intake(reader), Taken()
    intake.sinks[1, b"ours"] = taken
    for start in range(0, len(stream), chunk):
        reader.feed_data(stream[start : start + chunk])
    reader.feed_eof()

    assert len(await read_frames(intake)) == theirs
    assert taken.deliveries == ours


@given(st.integers(1, 50))
async def test_answers_to_our_bursts_are_taken_and_those_to_others_pass(chunk: int) -> None:
    returned = pamqp.frame.marshal(Basic.Return(312, "NO_ROUTE", "worker.events", "gone"), 5)
    header = ContentHeader(body_size=1, properties=Basic.Properties(message_id="m-1"))
    content = pamqp.frame.marshal(header, 5) + pamqp.frame.marshal(ContentBody(b"x"), 5)
    stream = (
        pamqp.frame.marshal(Basic.Ack(7, True), 5)
        + pamqp.frame.marshal(Basic.Ack(1, False), 6)  # another channel's
        + returned
        + content
        + pamqp.frame.marshal(Basic.Nack(8, False), 5)
        + pamqp.frame.marshal(Channel.CloseOk(), 5)
    )
    said: list[Any] = []
    reader = asyncio.StreamReader()
    intake = Intake(reader)
    intake.answers[5] = ConfirmSink(
        lambda *confirm: said.append(confirm), lambda *frames: said.append(frames)
    )
    for start in range(0, len(stream), chunk):
        reader.feed_data(stream[start : start + chunk])
    reader.feed_eof()
    passed = await read_frames(intake)

    assert [type(frame) for frame in passed] == [Basic.Ack, Channel.CloseOk]
    confirm, back, refusal = said
    assert (confirm, refusal) == ((7, True, True), (8, False, False))
    assert back[0] == returned
    assert properties.read(back[1]).message_id == "m-1"


async def test_aiormq_sees_a_sign_of_life_while_only_deliveries_come() -> None:
    reader = asyncio.StreamReader()
    intake = Intake(reader)
    intake.sinks[1, b"ours"] = Taken()
    intake._sign_of_life -= 100
    reader.feed_data(b"".join(delivery(1, "ours", 1, [b"x"]) + delivery(1, "ours", 2, [b"x"])))
    reader.feed_eof()

    (frame,) = await read_frames(intake)
    assert isinstance(frame, Heartbeat)
