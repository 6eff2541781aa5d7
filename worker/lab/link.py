"""The socket between generator and worker: arrivals go one way, in batches; answers the other.

An arrival is its intended time, 8 bytes; a batch is one write. An answer is one byte.
CLOCK_MONOTONIC is the same in all processes of a machine, so times may be compared across them.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

ARRIVAL_BYTES = 8
BUFFER_BYTES = 1 << 20
"""Some 100,000 arrivals: a worker that stands still for a moment does not hold up the generator."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends: the worker's and the generator's."""
    worker, generator = socket.socketpair()
    generator.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return worker, generator


def packed(times_ns: Sequence[int]) -> bytes:
    """Arrivals as they travel."""
    return array("q", times_ns).tobytes()


class Arrivals:
    """The worker's end; `answered` if the generator, with a closed load, waits for answers."""

    def __init__(self, end: socket.socket, *, answered: bool) -> None:
        self._end = end
        self._answered = answered
        self._writer: asyncio.StreamWriter | None = None

    async def batches(self) -> AsyncIterator[array[int]]:
        """The intended times of what has arrived, in nanoseconds, until the generator ends."""
        reader, self._writer = await asyncio.open_connection(sock=self._end, limit=BUFFER_BYTES)
        rest = b""
        # A generator that leaves answers unread resets the link, which is an end like any other.
        with suppress(ConnectionError):
            while piece := await reader.read(BUFFER_BYTES):
                piece = rest + piece
                whole = len(piece) - len(piece) % ARRIVAL_BYTES
                rest = piece[whole:]
                if whole:
                    yield array("q", piece[:whole])

    def answer(self) -> None:
        """A piece of work has ended; only a closed load wants to know."""
        if self._answered and self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"\0")

    def close(self) -> None:
        """Take no more."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._end.close()
