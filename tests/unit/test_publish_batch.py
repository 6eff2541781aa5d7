"""A group's messages as one write: the frames, the confirms, and what may go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pamqp.frame
import pytest
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from worker.broker.protocol.frame_writer import can_frame
from worker.broker.publisher import batch as burst_module
from worker.broker.publisher.batch import Burst, BurstChannel, knows
from worker.core.messages import Publication


class FakeChannel:
    """The part of aiormq's channel that bursts reach for."""

    number = 3
    max_content_size = 40

    def __init__(self) -> None:
        self.write_queue: asyncio.Queue[ChannelFrame] = asyncio.Queue()

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


class Bursts(BurstChannel):
    """On a channel that nobody reads."""

    def __init__(self) -> None:
        self.fake = FakeChannel()
        super().__init__(cast(Channel, self.fake))

    def sent(self, *publications: Publication) -> Burst:
        start = self.last_tag
        return self.send(
            publications, [f"id-{start + number}" for number in range(len(publications))]
        )

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.write())
        try:
            yield
        finally:
            task.cancel()

    async def written(self) -> bytes:
        piece = await asyncio.wait_for(self.fake.write_queue.get(), 5)
        assert not piece.should_close
        return piece.payload


def event(body: bytes = b"{}", **fields: Any) -> Publication:
    return Publication("worker.events", "user.created", body, **fields)


texts = st.text(max_size=30)


@given(st.binary(max_size=200), st.none() | texts, st.dictionaries(texts, texts | st.booleans()))
async def test_the_frames_are_what_pamqp_would_write(
    body: bytes, correlation: str | None, headers: dict[str, str | bool]
) -> None:
    bursts = Bursts()
    publication = event(
        body, content_type="a/b", type="user.created", correlation_id=correlation, headers=headers
    )
    bursts.sent(publication)
    async with bursts.writing():
        raw = await bursts.written()
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
    bursts = Bursts()
    burst = bursts.sent(event(), event(), event())
    bursts.confirmed(3, False, True)
    bursts.confirmed(1, False, True)
    early = (burst.unanswered, burst.complete.done())
    bursts.confirmed(2, False, True)

    assert early == (1, False)
    assert (burst.unanswered, burst.complete.done()) == (None, True)
    assert burst.faults == {}


async def test_one_confirm_may_be_about_several_bursts() -> None:
    bursts = Bursts()
    first, second, third = [bursts.sent(event(), event(), event()) for _ in range(3)]
    bursts.confirmed(5, True, True)

    assert first.complete.done()
    assert second.unanswered == 2
    assert third.unanswered == 0
    bursts.confirmed(9, True, True)
    assert second.complete.done()
    assert third.complete.done()


async def test_each_message_has_its_own_fault() -> None:
    bursts = Bursts()
    bursts.sent(event())
    burst = bursts.sent(event(), event(), event())
    method = pamqp.frame.marshal(Basic.Return(312, "NO_ROUTE", "worker.events", "user.gone"), 3)
    properties = Basic.Properties(message_id="id-2")
    bursts.returned(method, ContentHeader(properties=properties).marshal())
    bursts.confirmed(2, True, True)
    bursts.confirmed(3, False, True)  # the confirm that follows a return
    bursts.confirmed(4, False, False)

    assert burst.complete.done()
    returned, refused = burst.faults[1], burst.faults[2]
    assert isinstance(returned, PublishError)
    assert isinstance(returned.frame, Basic.Return)
    assert returned.frame.routing_key == "user.gone"
    assert isinstance(refused, DeliveryError)
    assert burst.faults.keys() == {1, 2}


async def test_a_refusal_of_several_spares_what_was_confirmed_before() -> None:
    bursts = Bursts()
    burst = bursts.sent(event(), event(), event())
    bursts.confirmed(2, False, True)
    bursts.confirmed(3, True, False)

    assert burst.faults.keys() == {0, 2}


@given(st.data())
async def test_any_order_of_confirms_completes_every_burst(data: st.DataObject) -> None:
    bursts = Bursts()
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    sent = [bursts.sent(*[event()] * size) for size in sizes]
    open_tags = list(range(1, sum(sizes) + 1))
    refused = set()
    while open_tags:
        tag = data.draw(st.sampled_from(open_tags))
        multiple, positive = data.draw(st.booleans()), data.draw(st.booleans())
        answered = [each for each in open_tags if each == tag or (multiple and each < tag)]
        open_tags = [each for each in open_tags if each not in answered]
        refused |= set() if positive else set(answered)
        bursts.confirmed(tag, multiple, positive)
        for burst in sent:
            mine = range(burst.first_tag, burst.first_tag + len(burst))
            missing = [each - burst.first_tag for each in open_tags if each in mine]
            assert burst.unanswered == (missing[0] if missing else None)
            assert burst.complete.done() == (not missing)

    faults = {burst.first_tag + number for burst in sent for number in burst.faults}
    assert faults == refused


def bodies(raw: bytes) -> list[bytes]:
    found = []
    while raw:
        size, _, frame = pamqp.frame.unmarshal(raw)
        found += [frame.value] if isinstance(frame, ContentBody) else []
        raw = raw[size:]
    return found


async def test_what_comes_while_two_writes_are_unconfirmed_leaves_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(burst_module, "MAX_WAIT_SECONDS", 60)
    bursts = Bursts()
    async with bursts.writing():
        bursts.sent(event(b"1"))
        first = await bursts.written()
        bursts.sent(event(b"2"), event(b"3"))
        second = await bursts.written()
        bursts.sent(event(b"4"))
        bursts.sent(event(b"5"))
        for _ in range(10):
            await asyncio.sleep(0)
        waited = bursts.fake.write_queue.empty()
        bursts.confirmed(2, False, True)  # the first write is still open
        bursts.confirmed(1, False, True)
        third = await bursts.written()

    assert (bodies(first), bodies(second)) == ([b"1"], [b"2", b"3"])
    assert waited
    assert bodies(third) == [b"4", b"5"]


async def test_a_slow_confirm_holds_others_up_for_a_moment_only() -> None:
    bursts = Bursts()
    async with bursts.writing():
        for number in range(5):
            bursts.sent(event(str(number).encode()))
            assert bodies(await bursts.written()) == [str(number).encode()]


def test_only_a_channel_of_the_known_shape_is_used() -> None:
    assert not knows(object())
    assert not knows(FakeChannel())


def test_a_copy_or_an_odd_header_is_left_to_the_public_calls() -> None:
    assert can_frame(event(headers={"commandid": "x", "x-replayed": True}))
    assert not can_frame(event(headers={"n": 1}))
    assert not can_frame(event(copy_of=b""))
