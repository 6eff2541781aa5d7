"""A group's messages as one write: the frames, the confirms, and what may go wrong."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import Any, cast

import pamqp.frame
import pytest
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from worker.broker.burst import Burst, can_send, knows
from worker.messages import Publication


class FakeChannel:
    """The part of aiormq's channel that a burst reaches for."""

    number = 3
    max_content_size = 40

    def __init__(self) -> None:
        self.confirmations: OrderedDict[int, Any] = OrderedDict()
        self.message_id_delivery_tag: dict[str, int] = {}
        self.delivery_tag = 10
        self.write_queue: asyncio.Queue[ChannelFrame] = asyncio.Queue(1)

    @property
    @asynccontextmanager
    async def lock(self) -> Any:
        yield

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


def burst(channel: FakeChannel, *publications: Publication) -> Burst:
    ids = [f"id-{number}" for number in range(len(publications))]
    return Burst(cast(Channel, channel), publications, ids)


def event(body: bytes = b"{}", **fields: Any) -> Publication:
    return Publication("worker.events", "user.created", body, **fields)


texts = st.text(max_size=30)


@given(st.binary(max_size=200), st.none() | texts, st.dictionaries(texts, texts | st.booleans()))
async def test_the_frames_are_what_pamqp_would_write(
    body: bytes, correlation: str | None, headers: dict[str, str | bool]
) -> None:
    channel = FakeChannel()
    publication = event(
        body, content_type="a/b", type="user.created", correlation_id=correlation, headers=headers
    )
    await burst(channel, publication).write()
    raw = channel.write_queue.get_nowait().payload
    frames: list[Any] = []
    while raw:
        size, number, frame = pamqp.frame.unmarshal(raw)
        assert number == 3
        frames.append(frame)
        raw = raw[size:]
    publish, header, *pieces = frames

    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key) == ("worker.events", "user.created")
    assert publish.mandatory
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(body)
    own = header.properties
    assert (own.content_type, own.message_type, own.delivery_mode) == ("a/b", "user.created", 2)
    assert own.correlation_id == (correlation or None)
    assert own.message_id == "id-0"
    assert own.timestamp is not None
    assert own.headers == headers
    assert all(isinstance(piece, ContentBody) for piece in pieces)
    assert b"".join(piece.value for piece in pieces) == body
    assert all(len(piece.value) <= 40 for piece in pieces)


async def test_it_is_complete_when_every_confirm_has_come_in_whatever_order() -> None:
    channel = FakeChannel()
    group = burst(channel, event(), event(), event())
    await group.write()
    assert channel.delivery_tag == 13
    for tag in (13, 11):
        channel.confirmations.pop(tag).set_result(None)
    assert not group.complete.done()
    channel.confirmations.pop(12).set_result(None)

    assert group.complete.done()
    assert group.outcomes == [True, True, True]
    assert channel.message_id_delivery_tag == {}


async def test_each_message_has_its_own_outcome() -> None:
    channel = FakeChannel()
    group = burst(channel, event(), event())
    await group.write()
    error = ValueError("returned")
    confirm = channel.confirmations[11]
    confirm.set_exception(error)
    confirm.set_result(None)  # the confirm that follows a return
    assert confirm.done()
    assert not confirm.cancelled()
    channel.confirmations[12].set_result(None)

    assert group.outcomes == [error, True]
    assert group.complete.done()


async def test_a_write_that_is_cancelled_takes_its_numbers_back() -> None:
    channel = FakeChannel()
    channel.write_queue.put_nowait(ChannelFrame(b"", should_close=False))
    writing = asyncio.create_task(burst(channel, event(), event()).write())
    await asyncio.sleep(0)
    assert channel.delivery_tag == 12
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert channel.delivery_tag == 10
    assert not channel.confirmations
    assert not channel.message_id_delivery_tag


def test_only_a_channel_of_the_known_shape_is_used() -> None:
    assert not knows(object())
    assert not knows(FakeChannel())


def test_a_copy_or_an_odd_header_is_left_to_the_public_calls() -> None:
    assert can_send(event(headers={"commandid": "x", "x-replayed": True}))
    assert not can_send(event(headers={"n": 1}))
    assert not can_send(event(copy_of=b""))
