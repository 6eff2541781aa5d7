"""Keeps a message whose properties cannot be decoded from cutting the connection.

aiormq closes the connection when a frame cannot be decoded: a publisher that sends a property which
is not UTF-8, a date past the year 9999 or a table nested a thousand deep would stop every worker,
again at each redelivery, until the broker has dead-lettered all that was prefetched with it. So
each delivery's routing key and content header are looked at before aiormq sees them, and what
cannot be decoded is replaced by something that says so. The body is not touched.
"""

from __future__ import annotations

import asyncio
import struct
from secrets import token_hex
from typing import Any, cast

import pamqp.frame
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from yarl import URL

# Another name in each process, so that no publisher can set it.
UNREADABLE_HEADER = f"x-unreadable-{token_hex(16)}"

_METHOD_FRAME, _HEADER_FRAME = 1, 2
_DELIVER = bytes((0, 60, 0, 60))
"""Class and method of `basic.deliver`."""
_FRAME_START = struct.Struct(">BHI")
_BODY_SIZE = struct.Struct(">Q")
_NOT_PLAIN = 0x2000 | 0x0040 | 0x0001
"""Property flags of `headers` and `timestamp`, and that of further flags (AMQP 0-9-1, 4.2.6.1)."""
_ONE_OCTET = (0x1000, 0x0800)
"""Property flags of `delivery_mode` and `priority`; what is left are short strings."""


class TolerantTransport(TransportFactory):
    """Opens the connection as aiormq does, with a reader that mends content headers."""

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect by TCP, or by TLS for `amqps`."""
        inner = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await inner.create(url, **kwargs)
        return cast(asyncio.StreamReader, _TolerantReader(reader)), writer


class _TolerantReader:
    """The part of a `StreamReader` that aiormq uses, one whole frame ahead."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._frame = b""
        self._position = 0

    def at_eof(self) -> bool:
        return self._position >= len(self._frame) and self._reader.at_eof()

    async def read(self, n: int = -1) -> bytes:
        return await self._reader.read(n)

    async def readexactly(self, n: int) -> bytes:
        if self._position >= len(self._frame):
            self._frame = await self._next_frame()
            self._position = 0
        start, self._position = self._position, self._position + n
        return self._frame[start : self._position]

    async def _next_frame(self) -> bytes:
        start = await self._reader.readexactly(_FRAME_START.size)
        if start.startswith(b"AMQP"):  # the server speaks another version: aiormq says so
            return start
        kind, channel, size = _FRAME_START.unpack(start)
        frame = start + await self._reader.readexactly(size + 1)
        if kind == _HEADER_FRAME:
            return mend_header(frame, channel)
        if kind == _METHOD_FRAME and frame[7:11] == _DELIVER:
            return mend_delivery(frame)
        return frame


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
    """The frame as it is if its properties can be decoded, else one that says why they cannot."""
    flags = int.from_bytes(frame[19:21], "big")
    if not flags & _NOT_PLAIN and frame[21:-1].isascii() and _is_whole(flags, frame):
        return frame  # nothing but short strings and numbers: it decodes
    try:
        pamqp.frame.unmarshal(frame)
    except Exception as error:
        (body_size,) = _BODY_SIZE.unpack(frame[11:19])
        reason = f"its AMQP properties cannot be decoded ({type(error).__name__})"
        properties = Basic.Properties(headers={UNREADABLE_HEADER: reason})
        header = ContentHeader(body_size=body_size, properties=properties)
        return pamqp.frame.marshal(header, channel)
    return frame


def _is_whole(flags: int, frame: bytes) -> bool:
    """Whether the properties that the flags announce are there to their end."""
    position, bit = 21, 0x8000
    while bit > 1:
        if flags & bit:
            if position >= len(frame) - 1:
                return False
            position += 1 if bit in _ONE_OCTET else 1 + frame[position]
        bit >>= 1
    return position <= len(frame) - 1
