"""A TCP proxy that breaks links: black hole, reset, and a cut at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class Proxy:
    """Listens on a port of its own and forwards to another, until told otherwise.

    `watch` sees every piece on its way to the server and back; when it returns true the link is cut
    at once: with `deliver` the piece still arrives first, without it is lost.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.watch: Callable[[bool, bytes], bool] = lambda to_server, piece: False
        self.deliver = True
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Let nothing through, and let nobody know."""
        self._open.clear()

    def thaw(self) -> None:
        """Let everything through again."""
        self._open.set()

    def reset(self) -> None:
        """Cut all links that there are."""
        for link in self._links:
            link.transport.abort()
        self._links.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._links |= {writer, server_writer}
        for to_server, source, sink in (
            (True, reader, server_writer),
            (False, server_reader, writer),
        ):
            task = asyncio.create_task(self._forward(to_server, source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self, to_server: bool, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        try:
            while piece := await source.read(65_536):
                await self._open.wait()
                cut = self.watch(to_server, piece)
                if not cut or self.deliver:
                    sink.write(piece)
                    await sink.drain()
                if cut:
                    self.cuts += 1
                    # What was written must leave before the link is cut.
                    await asyncio.sleep(0.02)
                    self.reset()
                    return
        except OSError:
            pass
        finally:
            if not sink.is_closing():
                sink.close()
