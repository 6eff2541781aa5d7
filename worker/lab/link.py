"""The socket between generator and process under test: arrivals go one way, answers the other.

An arrival is its intended time, 8 bytes; an answer is one byte. CLOCK_MONOTONIC is the same in all
processes of a machine, so times may be compared across them.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns

ARRIVAL_BYTES = 8
BUFFER_BYTES = 1 << 20
"""Some 100,000 arrivals."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends: of the process under test, and of the generator."""
    return socket.socketpair()


def packed(times_ns: Sequence[int]) -> bytes:
    """Arrivals as they travel."""
    return array("q", times_ns).tobytes()


@dataclass(frozen=True)
class LabLink:
    """One end, open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, end: socket.socket) -> LabLink:
        """Take over this end."""
        return cls(*await asyncio.open_connection(sock=end, limit=BUFFER_BYTES))

    async def pieces(self) -> AsyncIterator[bytes]:
        """What comes, until the other side ends."""
        # One that leaves answers unread resets the link, which is an end like any other.
        with suppress(ConnectionError):
            while piece := await self.reader.read(BUFFER_BYTES):
                yield piece

    async def batches(self) -> AsyncIterator[array[int]]:
        """The intended times of what has arrived, in nanoseconds."""
        rest = b""
        async for piece in self.pieces():
            rest += piece
            whole = len(rest) - len(rest) % ARRIVAL_BYTES
            if whole:
                yield array("q", rest[:whole])
            rest = rest[whole:]

    def write(self, data: bytes) -> None:
        """Send without waiting: what is not taken yet is kept and sent later."""
        if not self.writer.is_closing():
            self.writer.write(data)


async def sleep_until(when_ns: int) -> None:
    """Return once the time has come; at once if it has passed."""
    # A timer may come a little early, uvloop's by a millisecond.
    while (ahead := when_ns - monotonic_ns()) > 0:  # noqa: ASYNC110 - time is no event
        await asyncio.sleep(ahead / 1e9)
