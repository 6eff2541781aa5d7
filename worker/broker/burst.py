"""A whole group's messages as one write, and their confirms counted as one.

aiormq marshals each publish in four objects, queues it on its own and keeps a future for its
confirm; and the broker, getting them one by one, confirms them one by one. Written as one piece
they cost a tenth, and the broker confirms in batches. This reaches below aiormq's public surface:
so it is all here, `knows` looks at the start whether aiormq has the shape that is relied on, and
where it has not, `publisher.py` makes the public calls.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import fields
from time import time
from typing import Any

import pamqp.frame
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp.commands import Basic

from worker.broker.wire import BODY, HEADER
from worker.messages import Publication

_FRAME_START = struct.Struct(">BHI")
_FRAME_END = b"\xce"
_BASIC_CLASS = 60
_CONTENT_START = struct.Struct(">HHQH")
_TIMESTAMP = struct.Struct(">Q")
_SIZE = struct.Struct(">I")
# content_type, headers, delivery_mode, message_id, timestamp; and what is not always there.
_ALWAYS = 0x8000 | 0x2000 | 0x1000 | 0x0080 | 0x0040
_CORRELATION_ID, _TYPE = 0x0400, 0x0020
_PERSISTENT = b"\x02"
MAX_SHORT_STRING = 255
"""Bytes of an AMQP short string."""
_MAX_CACHED_METHODS = 1_000

_NEEDED = ("confirmations", "message_id_delivery_tag", "write_queue", "delivery_tag", "lock")


def knows(channel: Any) -> bool:
    """Whether the channel is one of aiormq's, of the shape that a burst relies on."""
    return (
        isinstance(channel, Channel)
        and all(hasattr(channel, name) for name in _NEEDED)
        and [field.name for field in fields(ChannelFrame)]
        == ["payload", "should_close", "drain_future"]
    )


def can_send(publication: Publication) -> bool:
    """Whether the message is simple enough: no copy of another, nothing but text in its headers."""
    return publication.copy_of is None and all(
        isinstance(value, str | bool) for value in publication.headers.values()
    )


class _Confirm:
    """Stands in for the future that aiormq keeps for each confirm."""

    __slots__ = ("_burst", "_number")

    def __init__(self, burst: Burst, number: int) -> None:
        self._burst = burst
        self._number = number

    def done(self) -> bool:
        return self._burst.outcomes[self._number] is not None

    def cancelled(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        self._burst.settle(self._number, True)

    def set_exception(self, error: Exception) -> None:
        self._burst.settle(self._number, error)


class Burst:
    """Messages that were written together.

    `outcomes` tells of each whether it was confirmed (`True`), what became of it, or nothing yet;
    `complete` is done when all are told, or fails with the channel.
    """

    def __init__(self, channel: Channel, publications: Sequence[Publication], ids: Sequence[str]):
        self.complete = channel.create_future()
        self.outcomes: list[bool | Exception | None] = [None] * len(publications)
        self._channel = channel
        self._publications = publications
        self._ids = ids
        self._missing = len(publications)

    async def write(self) -> None:
        """Register the confirms and put all frames into the channel's queue, as one piece."""
        channel = self._channel
        async with channel.lock:
            first = channel.delivery_tag + 1
            channel.delivery_tag += len(self._ids)
            for number, id_ in enumerate(self._ids):
                # aiormq asks of a confirmation no more than these methods.
                channel.confirmations[first + number] = _Confirm(self, number)  # type: ignore[assignment]
                channel.message_id_delivery_tag[id_] = first + number
            try:
                await channel.write_queue.put(ChannelFrame(self._frames(), should_close=False))
            except BaseException:
                # Nothing was sent: the next message takes these numbers.
                channel.delivery_tag -= len(self._ids)
                for number, id_ in enumerate(self._ids):
                    channel.confirmations.pop(first + number, None)
                    channel.message_id_delivery_tag.pop(id_, None)
                raise

    def settle(self, number: int, outcome: bool | Exception) -> None:
        """Note what became of a message."""
        if self.outcomes[number] is not None:
            return
        self.outcomes[number] = outcome
        self._channel.message_id_delivery_tag.pop(self._ids[number], None)
        self._missing -= 1
        if self._missing == 0 and not self.complete.done():
            self.complete.set_result(None)

    def _frames(self) -> bytes:
        channel, now = self._channel.number, int(time())
        limit = self._channel.max_content_size
        parts: list[bytes] = []
        for publication, id_ in zip(self._publications, self._ids, strict=True):
            body = publication.body
            parts.append(_method(channel, publication.exchange, publication.routing_key))
            parts.append(_frame(HEADER, channel, _content_header(publication, id_, now)))
            parts.extend(
                _frame(BODY, channel, body[start : start + limit])
                for start in range(0, len(body), limit)
            )
        return b"".join(parts)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_START.pack(kind, channel, len(payload)) + payload + _FRAME_END


_methods: dict[tuple[int, str, str], bytes] = {}


def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    """`basic.publish`, mandatory; event types are few, so it is kept."""
    known = _methods.get((channel, exchange, routing_key))
    if known is not None:
        return known
    publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    frame = pamqp.frame.marshal(publish, channel)
    if exchange and len(_methods) < _MAX_CACHED_METHODS:
        _methods[channel, exchange, routing_key] = frame
    return frame


def _content_header(publication: Publication, id_: str, now: int) -> bytes:
    flags = _ALWAYS
    headers = b"".join(_field(name, value) for name, value in publication.headers.items())
    parts = [
        _short(publication.content_type or ""),
        _SIZE.pack(len(headers)),
        headers,
        _PERSISTENT,
    ]
    correlation = (publication.correlation_id or "").encode()
    if 0 < len(correlation) <= MAX_SHORT_STRING:  # a longer one stands in the event only
        flags |= _CORRELATION_ID
        parts.append(bytes((len(correlation),)) + correlation)
    parts += (_short(id_), _TIMESTAMP.pack(now))
    if publication.type is not None:
        flags |= _TYPE
        parts.append(_short(publication.type))
    return _CONTENT_START.pack(_BASIC_CLASS, 0, len(publication.body), flags) + b"".join(parts)


def _short(text: str) -> bytes:
    value = text.encode()
    return bytes((len(value),)) + value


def _field(name: str, value: str | bool) -> bytes:
    if isinstance(value, bool):
        return _short(name) + b"t" + bytes((value,))
    text = value.encode()
    return _short(name) + b"S" + _SIZE.pack(len(text)) + text
