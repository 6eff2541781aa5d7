"""A whole group's messages as one write, and their confirms counted as one.

aiormq marshals each publish in four objects, queues it on its own, keeps a future for its confirm
and walks over all of these for each confirm that comes; and the broker, getting messages one by
one, confirms them one by one. Written as one piece they cost a tenth, and are confirmed in batches.

Bursts that come while two writes wait for their confirms leave together with the next one: alone
when there is little to do, so that nothing waits, and together under load, whoever they come from.

This reaches below aiormq's public surface, for the queue of its writer: so it is all here, `knows`
looks at the start whether aiormq has the shape that is relied on, and where it has not,
`publisher.py` makes the public calls. Nothing else is published on the channel, so every number
that the broker confirms is one of ours; `frame_reader.py` hands the confirms over before aiormq
sees them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pamqp.frame
from aio_pika.abc import AbstractConnection
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from worker.broker.connection import intake_of, open_channel
from worker.broker.protocol import properties
from worker.broker.protocol.frame_reader import ConfirmSink
from worker.broker.protocol.frame_writer import frames, payload_limit
from worker.core.messages import Publication


class Burst:
    """Messages that were written together, numbered from 0.

    `complete` is done when the broker has answered for all of them, or fails with the channel;
    `faults` holds what became of those that it did not take.
    """

    def __init__(self, first_tag: int, ids: Sequence[str], complete: asyncio.Future[None]) -> None:
        self.first_tag = first_tag
        self.ids = ids
        self.complete = complete
        self.faults: dict[int, Exception] = {}
        self._unanswered = bytearray(b"\x01" * len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unanswered(self) -> int | None:
        """The first message that the broker has not answered for."""
        number = self._unanswered.find(1)
        return None if number < 0 else number

    @property
    def all_unanswered(self) -> list[int]:
        """Every message that the broker has not answered for."""
        return [number for number, waits in enumerate(self._unanswered) if waits]

    def lose(self, reason: BaseException) -> None:
        """What is not answered never will be."""
        if not self.complete.done():
            self.complete.set_exception(reason)
            self.complete.exception()  # whoever waited may have given up

    def answer(self, start: int, end: int, fault: Exception | None) -> None:
        """The broker answered for the messages from `start` to before `end`."""
        if fault is not None:
            for number in range(start, end):
                if self._unanswered[number]:
                    self.faults.setdefault(number, fault)
        self._unanswered[start:end] = bytes(end - start)
        if 1 not in self._unanswered and not self.complete.done():
            self.complete.set_result(None)


MAX_UNCONFIRMED_WRITES = 2
MAX_WAIT_SECONDS = 0.02
"""How long a burst waits for the confirms of others, one of which may be slow in coming."""


class BurstChannel:
    """Writes bursts, and finds for each answer of the broker the burst that it is about."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.last_tag = 0
        self.last_answered = 0
        """The highest tag that the broker has answered for."""
        self._open: deque[Burst] = deque()  # not answered in full, by their tags
        self._frames: list[bytes] = []  # of bursts that are not written yet
        self._came = asyncio.Event()
        self._unconfirmed: deque[int] = deque()  # the last tag of each write
        self._confirmed = asyncio.Event()

    def send(self, publications: Sequence[Publication], ids: Sequence[str]) -> Burst:
        """Have the messages written; `ids` are their message ids."""
        channel = self.channel
        burst = Burst(self.last_tag + 1, ids, channel.create_future())
        self.last_tag += len(ids)
        self._open.append(burst)
        limit = payload_limit(channel.max_content_size)
        self._frames.append(frames(channel.number, limit, publications, ids))
        self._came.set()
        return burst

    async def write(self) -> None:
        """Write what is sent, for as long as the channel lives."""
        while True:
            await self._came.wait()
            await self._room()
            self._came.clear()
            piece, self._frames = b"".join(self._frames), []
            self._unconfirmed.append(self.last_tag)
            await self.channel.write_queue.put(ChannelFrame(piece, should_close=False))

    async def _room(self) -> None:
        if len(self._unconfirmed) < MAX_UNCONFIRMED_WRITES:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while len(self._unconfirmed) >= MAX_UNCONFIRMED_WRITES:
                    self._confirmed.clear()
                    await self._confirmed.wait()

    def confirmed(self, tag: int, multiple: bool, positive: bool) -> None:
        """The broker confirmed a message, or all up to it; or refused to take them."""
        fault = None if positive else DeliveryError(None, Basic.Nack(tag, multiple))
        for burst in self._open:
            end = tag - burst.first_tag + 1
            if end <= 0:
                break
            if multiple:
                burst.answer(0, min(end, len(burst)), fault)
            elif end <= len(burst):
                burst.answer(end - 1, end, fault)
        self.last_answered = max(self.last_answered, tag)
        self._advance()

    def forget(self, burst: Burst) -> None:
        """Wait no longer for what was not answered: it holds nothing up."""
        if burst.unanswered is not None and burst in self._open:
            self._open.remove(burst)
            self._advance()

    def _advance(self) -> None:
        while self._open and self._open[0].unanswered is None:
            self._open.popleft()
        oldest = self._open[0].first_tag if self._open else self.last_tag + 1
        while self._unconfirmed and self._unconfirmed[0] < oldest:
            self._unconfirmed.popleft()
            self._confirmed.set()

    def returned(self, method: bytes, header: bytes) -> None:
        """The broker found no queue for a message; its confirm still follows."""
        id_ = properties.read(header).message_id
        for burst in self._open:
            if id_ in burst.ids:
                burst.faults.setdefault(burst.ids.index(id_), _no_queue(method, self.channel))


def _no_queue(method: bytes, channel: Channel) -> PublishError:
    _, _, frame = pamqp.frame.unmarshal(method)
    assert isinstance(frame, Basic.Return)
    return PublishError(DeliveredMessage(frame, ContentHeader(), b"", channel), frame)


async def open_bursts(connection: AbstractConnection) -> BurstChannel | None:
    """A channel for bursts, or `None` where the connection or aiormq is not of the known shape."""
    intake = intake_of(connection)
    if intake is None:
        return None
    channel = await open_channel(connection)
    if not knows(channel):
        return None
    bursts = BurstChannel(channel)
    intake.answers[channel.number] = ConfirmSink(bursts.confirmed, bursts.returned)
    return bursts


def knows(channel: Any) -> bool:
    """Whether the channel is one of aiormq's, of the shape that a burst relies on."""
    return (
        isinstance(channel, Channel)
        and all(hasattr(channel, name) for name in ("write_queue", "max_content_size"))
        and [field.name for field in fields(ChannelFrame)]
        == ["payload", "should_close", "drain_future"]
    )
