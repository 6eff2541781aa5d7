"""One connection through the fault proxy: two directions, each under conditions of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from threading import Event
from weakref import WeakKeyDictionary

PIECE_BYTES = 65_536
PIECES_AHEAD = 256
"""Pieces that a direction holds back before it reads no more and the sender feels it."""

_random = Random()  # noqa: S311 - spreads delays, guards nothing


class Cut:
    """A cut that waits for its moment: a piece that holds some bytes, or that a function likes."""

    def __init__(
        self, moment: bytes | Callable[[bytes], bool], *, deliver: bool, times: int
    ) -> None:
        self.deliver = deliver
        self.count = 0
        self._moment = moment
        self._times = times
        self._changed = Event()
        self._tails: WeakKeyDictionary[ProxiedLink, bytes] = WeakKeyDictionary()

    def wait(self, timeout_seconds: float = 10) -> bool:
        """Whether it has happened, at the latest after so many seconds."""
        return self._changed.wait(timeout_seconds)

    def falls_on(self, link: ProxiedLink, piece: bytes) -> bool:
        """Whether this piece is the moment; counts it if so."""
        if self.count >= self._times or not self._likes(link, piece):
            return False
        self.count += 1
        self._changed.set()
        return True

    def _likes(self, link: ProxiedLink, piece: bytes) -> bool:
        if callable(self._moment):
            return self._moment(piece)
        # The bytes may be spread over two pieces.
        seen = self._tails.get(link, b"") + piece
        self._tails[link] = seen[max(0, len(seen) - len(self._moment) + 1) :]
        return self._moment in seen


@dataclass
class Conditions:
    """What one direction of every link suffers."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    """Up to this much is added to the latency, anew for each piece; their order is kept."""
    bytes_per_second: float | None = None
    swallowing: bool = False
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    cuts: list[Cut] = field(default_factory=list)
    record: bytearray | None = None

    def __post_init__(self) -> None:
        self.thawed.set()

    @property
    def frozen(self) -> bool:
        """Whether everything is held back."""
        return not self.thawed.is_set()

    @frozen.setter
    def frozen(self, value: bool) -> None:
        (self.thawed.clear if value else self.thawed.set)()

    def heal(self) -> None:
        """Fair weather again."""
        self.latency_seconds = self.jitter_seconds = 0.0
        self.bytes_per_second = None
        self.swallowing = self.frozen = False
        self.cuts.clear()

    def delay(self) -> float:
        """Seconds that the next piece is under way."""
        return self.latency_seconds + _random.uniform(0, self.jitter_seconds)


class ProxiedLink:
    """Carries bytes between a client and the server until both have ended, or it breaks."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self._ended: set[asyncio.StreamWriter] = set()
        self._task: asyncio.Task[None] | None = None
        self.torn = False
        """Bytes were swallowed: what follows would be a stream with a hole, which TCP never has."""

    async def carry(
        self,
        from_client: asyncio.StreamReader,
        from_server: asyncio.StreamReader,
        to_server: Conditions,
        to_client: Conditions,
    ) -> None:
        """Return when the link has ended, in whatever way."""
        self._task = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                for source, sink, conditions in (
                    (from_client, self._server, to_server),
                    (from_server, self._client, to_client),
                ):
                    pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(PIECES_AHEAD)
                    group.create_task(self._read(source, pieces, conditions))
                    group.create_task(self._write(pieces, sink, conditions))
        except* OSError:
            self.reset()
        finally:
            self._client.close()
            self._server.close()

    def reset(self) -> None:
        """Break both sides at once, as a host that has lost its memory would: with a RST."""
        for writer in (self._client, self._server):
            abort(writer)
        self._leave()

    def half_close(self, *, to_server: bool) -> None:
        """Tell one side that the other has nothing more to say, whether or not it has."""
        self._end(self._server if to_server else self._client)

    async def _read(
        self,
        source: asyncio.StreamReader,
        pieces: asyncio.Queue[tuple[float, bytes | None]],
        conditions: Conditions,
    ) -> None:
        piece: bytes | None = b" "
        while piece:
            try:
                piece = await source.read(PIECE_BYTES)
            except OSError:
                piece = None
            due = asyncio.get_running_loop().time() + conditions.delay()
            await pieces.put((due, piece))

    async def _write(
        self,
        pieces: asyncio.Queue[tuple[float, bytes | None]],
        sink: asyncio.StreamWriter,
        conditions: Conditions,
    ) -> None:
        while True:
            due, piece = await pieces.get()
            early = due - asyncio.get_running_loop().time()
            if early > 0:
                await asyncio.sleep(early)
            await conditions.thawed.wait()
            if conditions.swallowing:
                self.torn = True
            elif piece is None:
                self.reset()
            elif not piece:
                self._end(sink)
                return
            else:
                await self._pass_on(piece, sink, conditions)

    async def _pass_on(
        self, piece: bytes, sink: asyncio.StreamWriter, conditions: Conditions
    ) -> None:
        if conditions.record is not None:
            conditions.record += piece
        cut = next((cut for cut in conditions.cuts if cut.falls_on(self, piece)), None)
        if cut is not None and not cut.deliver:
            self.reset()
            return
        if sink not in self._ended:
            await _send(piece, sink, conditions.bytes_per_second)
        if cut is not None:
            # Closing, unlike a reset, lets what was written arrive first.
            sink.close()
            abort(self._client if sink is self._server else self._server)
            self._leave()

    def _end(self, sink: asyncio.StreamWriter) -> None:
        if sink not in self._ended and not sink.is_closing():
            self._ended.add(sink)
            sink.write_eof()

    def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _send(piece: bytes, sink: asyncio.StreamWriter, bytes_per_second: float | None) -> None:
    step = len(piece) if bytes_per_second is None else max(1, round(bytes_per_second / 20))
    for start in range(0, len(piece), step):
        part = piece[start : start + step]
        if bytes_per_second is not None:
            await asyncio.sleep(len(part) / bytes_per_second)
        sink.write(part)
        await sink.drain()


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with a RST instead of a FIN; what was not read or sent yet is gone."""
    found = writer.get_extra_info("socket")
    if found is not None and not writer.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
