"""Reads frames from one buffer, hands deliveries over directly, and survives hostile properties.

aiormq awaits three times a frame, queues each frame, and starts a task for each delivery; that is
most of what a command costs. So the reader that it is given (through its public transport factory)
takes the frames of our own deliveries, and of what the broker answers to our bursts, out of the
stream and hands them over at once. All other frames reach aiormq as they came.

aiormq also closes the connection when a frame cannot be decoded: a publisher that sends a property
which is not UTF-8, a date past the year 9999 or a table nested a thousand deep would stop every
worker, again at each redelivery, until the broker has dead-lettered all that was prefetched with
it. What cannot be decoded is left out, or replaced by something that says so. The body is not
touched.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from time import monotonic
from typing import Any, cast

import pamqp.frame
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.commands import Basic, Connection
from pamqp.header import ContentHeader
from yarl import URL

from worker.broker.protocol.content_header import properties_in, written_anew

# Another name in each process, so that no publisher can set it.
UNREADABLE_HEADER = f"x-unreadable-{token_hex(16)}"

Sink = Callable[[int, bool, bytes, bytes, bytes], None]
"""Takes delivery tag, redelivered, routing key, content header (its payload) and body; must not
raise."""


@dataclass(frozen=True, slots=True)
class ConfirmSink:
    """Takes what the broker says of the messages published on a channel; must not raise."""

    confirmed: Callable[[int, bool, bool], None]
    """Takes delivery tag, multiple, and whether the broker took the messages."""
    returned: Callable[[bytes, bytes], None]
    """Takes the frame of `basic.return`, and the content header (its payload)."""


METHOD, HEADER, BODY = 1, 2, 3
# Class and method, as they stand in a frame.
_CLOSE = bytes((0, 10, 0, 50))
_DELIVER, _RETURN = bytes((0, 60, 0, 60)), bytes((0, 60, 0, 50))
_ACK, _NACK = bytes((0, 60, 0, 80)), bytes((0, 60, 0, 120))
_FRAME_START = struct.Struct(">BHI")
_FRAME_EXTRA = _FRAME_START.size + 1
_TAG_AND_FLAGS = struct.Struct(">QB")
_BODY_SIZE = struct.Struct(">Q")
_HEARTBEAT = bytes((8, 0, 0, 0, 0, 0, 0, 0xCE))
_SIGN_OF_LIFE_SECONDS = 1.0
_READ_BYTES = 1 << 18


class TolerantTransport(TransportFactory):
    """Opens the connection as aiormq does, and reads it with an `Intake`."""

    intake: Intake

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect by TCP, or by TLS for `amqps`."""
        inner = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await inner.create(url, **kwargs)
        self.intake = Intake(reader)
        return cast(asyncio.StreamReader, self.intake), writer


@dataclass(slots=True)
class _Content:
    """A delivery, or a returned message, whose header and body frames are still to come."""

    sink: Sink
    tag: int
    redelivered: bool
    routing_key: bytes = b""
    header: bytes = b""
    missing: int = 0
    pieces: list[bytes] = field(default_factory=list)


class Intake:
    """The part of a `StreamReader` that aiormq uses, a frame at a time.

    `sinks` holds, by channel number and consumer tag, who takes a consumer's deliveries, `answers`,
    by channel number, who takes confirms and returns; those of others go to aiormq.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.sinks: dict[tuple[int, bytes], Sink] = {}
        self.answers: dict[int, ConfirmSink] = {}
        self.farewell: Connection.Close | None = None
        """What the broker has said when it ended the connection."""
        self._reader = reader
        self._buffer = b""
        self._start = 0
        self._contents: dict[int, _Content] = {}
        self._sign_of_life = monotonic()
        self._frame = b""
        self._position = 0

    def at_eof(self) -> bool:
        """Whether all has been read, and no more can come."""
        unread = self._position < len(self._frame) or self._start < len(self._buffer)
        return not unread and self._reader.at_eof()

    async def read(self, n: int = -1) -> bytes:
        """What is left of the stream."""
        return await self._reader.read(n)

    async def readexactly(self, n: int) -> bytes:
        """The next bytes of the frame that is for aiormq."""
        if self._position >= len(self._frame):
            self._frame = await self._next_frame()
            self._position = 0
        start, self._position = self._position, self._position + n
        return self._frame[start : self._position]

    async def _next_frame(self) -> bytes:
        """The next frame that is for aiormq."""
        while True:
            frame = await self._read_frame()
            if self._take(frame):
                # aiormq gives a connection up on which it has seen no frame for long.
                if monotonic() - self._sign_of_life > _SIGN_OF_LIFE_SECONDS:
                    self._sign_of_life = monotonic()
                    return _HEARTBEAT
                continue
            if frame[0] == HEADER:
                return mend_header(frame, int.from_bytes(frame[1:3], "big"))
            if frame[0] == METHOD and frame[7:11] == _DELIVER:
                return mend_delivery(frame)
            if frame[0] == METHOD and frame[7:11] == _CLOSE:
                self.farewell = cast(Connection.Close, pamqp.frame.unmarshal(frame)[2])
            return frame

    async def _read_frame(self) -> bytes:
        while True:
            start, buffer = self._start, self._buffer
            if buffer.startswith(b"AMQP", start):  # the server speaks another version
                self._start = len(buffer)
                return buffer[start:]
            if len(buffer) - start >= _FRAME_START.size:
                end = start + _FRAME_EXTRA + int.from_bytes(buffer[start + 3 : start + 7], "big")
                if end <= len(buffer):
                    self._start = end
                    return buffer[start:end]
            piece = await self._reader.read(_READ_BYTES)
            if not piece:
                raise asyncio.IncompleteReadError(buffer[start:], _FRAME_START.size)
            self._buffer, self._start = buffer[start:] + piece, 0

    def _take(self, frame: bytes) -> bool:
        """Take the frame if it is for one of the sinks, or an answer that is waited for."""
        kind, channel, _ = _FRAME_START.unpack_from(frame)
        if kind == METHOD:
            method = frame[7:11]
            if method == _DELIVER:
                return self._take_delivery(channel, frame)
            return channel in self.answers and self._take_answer(channel, method, frame)
        content = self._contents.get(channel)
        if content is None or kind not in (HEADER, BODY):
            return False
        if kind == HEADER:
            content.header = frame[7:-1]
            (content.missing,) = _BODY_SIZE.unpack_from(frame, 11)
        else:
            content.pieces.append(frame[7:-1])
            content.missing -= len(frame) - _FRAME_EXTRA
        if content.missing <= 0:
            del self._contents[channel]
            pieces = content.pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            content.sink(
                content.tag, content.redelivered, content.routing_key, content.header, body
            )
        return True

    def _take_delivery(self, channel: int, frame: bytes) -> bool:
        end = 12 + frame[11]
        sink = self.sinks.get((channel, frame[12:end]))
        if sink is None:
            return False
        tag, redelivered = _TAG_AND_FLAGS.unpack_from(frame, end)
        exchange = end + _TAG_AND_FLAGS.size
        routing_key = frame[exchange + 1 + frame[exchange] + 1 : -1]
        self._contents[channel] = _Content(sink, tag, bool(redelivered), routing_key)
        return True

    def _take_answer(self, channel: int, method: bytes, frame: bytes) -> bool:
        answers = self.answers[channel]
        if method in (_ACK, _NACK):
            tag, flags = _TAG_AND_FLAGS.unpack_from(frame, 11)
            answers.confirmed(tag, bool(flags & 1), method == _ACK)
            return True
        if method == _RETURN:

            def returned(_: int, __: bool, ___: bytes, header: bytes, ____: bytes) -> None:
                answers.returned(frame, header)

            self._contents[channel] = _Content(returned, 0, False)
            return True
        return False


def mend_delivery(frame: bytes) -> bytes:
    """The `basic.deliver` frame with exchange and routing key left out if they are not UTF-8.

    Its fields: consumer tag, delivery tag (8 bytes), redelivered (1), exchange, routing key.
    """
    exchange = 11 + 1 + frame[11] + 9
    routing_key = exchange + 1 + frame[exchange]
    if _is_utf8(frame[routing_key + 1 : -1]) and _is_utf8(frame[exchange + 1 : routing_key]):
        return frame
    name = frame[exchange:routing_key] if _is_utf8(frame[exchange + 1 : routing_key]) else b"\x00"
    payload = frame[7:exchange] + name + b"\x00"
    return frame[:3] + len(payload).to_bytes(4, "big") + payload + frame[-1:]


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def mend_header(frame: bytes, channel: int) -> bytes:
    """The frame as it is if its properties can be decoded, else one with those that can be.

    A header that is broken as a whole is replaced by one that says so.
    """
    try:
        pamqp.frame.unmarshal(frame)
    except Exception:
        (body_size,) = _BODY_SIZE.unpack(frame[11:19])
        try:
            properties = written_anew(properties_in(frame[7:-1])[0], {})
            return _marshal(channel, body_size, properties)
        # Tables that could just be encoded one by one may be too deep a few calls further down.
        except (ValueError, RecursionError) as error:
            properties = Basic.Properties(headers={UNREADABLE_HEADER: unreadable(error)})
            return _marshal(channel, body_size, properties)
    return frame


def _marshal(channel: int, body_size: int, properties: Basic.Properties) -> bytes:
    header = ContentHeader(body_size=body_size, properties=properties)
    return pamqp.frame.marshal(header, channel)


def unreadable(error: Exception) -> str:
    """Why properties cannot be read, in words that no publisher has a hand in."""
    return f"its AMQP properties cannot be decoded ({type(error).__name__})"
