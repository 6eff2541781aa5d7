"""A TCP proxy that breaks links as networks and hosts do.

    with Proxy.before("amqp://guest:guest@127.0.0.1:5672/") as proxy:
        url = proxy.through("amqp://guest:guest@127.0.0.1:5672/")   # for the worker
        proxy.freeze()                              # nothing passes, and nobody is told
        proxy.heal()
        cut = proxy.cut_when(COMMIT, deliver=True)  # the server commits, the reply is lost

It serves in a thread of its own, so asyncio tests and plain ones use it alike. Every method may be
called from any thread and has taken effect when it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from threading import Thread, get_ident
from typing import Literal, Self
from urllib.parse import urlsplit

from worker.testing.link import Conditions, Cut, ProxiedLink, abort

Way = Literal["both", "to_server", "to_client"]
"""Which direction of the links a fault concerns."""

COMMIT = b"COMMIT;"
"""How asyncpg ends a transaction: the moment at which a cut leaves the outcome unknown."""

_PORTS = {"amqp": 5672, "amqps": 5671, "postgresql": 5432, "postgres": 5432}
_CALL_SECONDS = 30


class Proxy:
    """Listens on `port` of 127.0.0.1 and forwards to another host and port, through any weather.

    A fault concerns all links, those that come later included, until `heal`. Faults of different
    kinds may be combined.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._to_server, self._to_client = Conditions(), Conditions()
        self._refusing = False
        self._links: set[ProxiedLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        """Where it listens, once started; the same through all faults."""

    @classmethod
    def before(cls, url: str) -> Self:
        """A proxy in front of the server of a URL (`amqp://…`, `postgresql+asyncpg://…`)."""
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme.partition("+")[0]]
        return cls(parts.hostname or "127.0.0.1", port)

    def through(self, url: str) -> str:
        """The same URL by way of the proxy."""
        parts = urlsplit(url)
        account, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{account}{at}127.0.0.1:{self.port}").geturl()

    # Start and stop

    def start(self) -> Self:
        """Listen; return when connections are taken."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_CALL_SECONDS)
        return self

    def stop(self) -> None:
        """Break all links, and listen no more."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_CALL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    # What can go wrong

    def slow(
        self,
        *,
        latency_seconds: float = 0,
        jitter_seconds: float = 0,
        bytes_per_second: float | None = None,
        way: Way = "both",
    ) -> None:
        """Delay every piece, by up to `jitter_seconds` more at random, and bound the throughput."""
        self._set(
            way,
            latency_seconds=latency_seconds,
            jitter_seconds=jitter_seconds,
            bytes_per_second=bytes_per_second,
        )

    def freeze(self, *, way: Way = "both") -> None:
        """Hold everything back, new links and ends of links too; `heal` lets all of it through."""
        self._set(way, frozen=True)

    def swallow(self, *, way: Way = "both") -> None:
        """Be a black hole: take every byte and pass none on.

        `heal` resets the links that lost any, since no TCP stream ever has a hole.
        """
        self._set(way, swallowing=True)

    def refuse(self) -> None:
        """Break every new connection at once; those that there are go on."""
        self._call(lambda: setattr(self, "_refusing", True))

    def reset(self) -> None:
        """Break all links that there are; new ones are welcome."""
        self._each_link(ProxiedLink.reset)

    def half_close(self, *, way: Literal["to_server", "to_client"] = "to_server") -> None:
        """Tell the server (or the client) that its peer will send no more; the rest goes on."""
        to_server = way == "to_server"
        self._each_link(lambda link: link.half_close(to_server=to_server))

    def cut_when(
        self,
        moment: bytes | Callable[[bytes], bool],
        *,
        deliver: bool,
        way: Literal["to_server", "to_client"] = "to_server",
        times: int = 1,
    ) -> Cut:
        """Cut a link at the moment when these bytes pass, or a piece that the function likes.

        With `deliver` they still arrive and only what follows is lost, without it they are lost.
        Only the link on which they pass is cut. The result tells when it has happened.
        """
        cut = Cut(moment, deliver=deliver, times=times)
        self._call(lambda: self._only(way).cuts.append(cut))
        return cut

    def heal(self) -> None:
        """End all faults: no delay, nothing held back or swallowed, no cut to come."""

        def change() -> None:
            self._refusing = False
            for conditions in self._conditions("both"):
                conditions.heal()
            for link in list(self._links):
                if link.torn:
                    link.reset()

        self._call(change)

    # What can be seen

    @property
    def links(self) -> int:
        """How many links there are."""
        return len(self._links)

    def record(self, *, way: Literal["to_server", "to_client"] = "to_server") -> bytearray:
        """What passes on all links from now on; it grows as it does."""
        record = bytearray()
        self._set(way, record=record)
        return record

    # The inside; all of it runs in the proxy's own thread

    def _conditions(self, way: Way) -> Iterator[Conditions]:
        if way != "to_client":
            yield self._to_server
        if way != "to_server":
            yield self._to_client

    def _only(self, way: Literal["to_server", "to_client"]) -> Conditions:
        return self._to_server if way == "to_server" else self._to_client

    def _set(self, way: Way, **values: object) -> None:
        def change() -> None:
            for conditions in self._conditions(way):
                for name, value in values.items():
                    setattr(conditions, name, value)

        self._call(change)

    def _each_link(self, change: Callable[[ProxiedLink], None]) -> None:
        def change_all() -> None:
            for link in list(self._links):
                change(link)

        self._call(change_all)

    def _call(self, change: Callable[[], object]) -> None:
        if get_ident() == self._thread.ident:
            change()
            return

        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to tell that they are closed

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            abort(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            abort(writer)
            return
        link = ProxiedLink(writer, server_writer)
        self._links.add(link)
        try:
            await link.carry(reader, server_reader, self._to_server, self._to_client)
        finally:
            self._links.discard(link)
