"""`/livez`, `/readyz` and `/metrics` of several processes, without the libraries of one.

The least of HTTP/1.1 that probes need: GET and HEAD, one request a connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from worker.telemetry.listening import cannot_listen

REQUEST_SECONDS = 5
REQUEST_BYTES = 16_384


@dataclass(frozen=True)
class PageBody:
    """What a page says, and whether that is that all is well."""

    text: str
    content_type: str
    well: bool = True


Page = Callable[[], Awaitable[PageBody]]


def json_answer(body: Any, *, well: bool = True) -> PageBody:
    """An answer for machines and people."""
    return PageBody(json.dumps(body), "application/json; charset=utf-8", well)


class Pages:
    """Serves the pages while it is entered."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self._host, self.port = host, port
        self._pages = pages

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self.port, limit=REQUEST_BYTES
            )
        except OSError as error:
            raise cannot_listen(self._host, self.port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Slow, torn, endless or hung up: whoever asks so gets no answer.
        with suppress(TimeoutError, EOFError, ConnectionError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(request))
                await writer.drain()
        writer.close()

    async def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            status, answer = HTTPStatus.NOT_FOUND, json_answer({"error": "no such page"})
        elif method not in {"GET", "HEAD"}:
            status, answer = HTTPStatus.METHOD_NOT_ALLOWED, json_answer({"error": "only GET, HEAD"})
        else:
            answer = await page()
            status = HTTPStatus.OK if answer.well else HTTPStatus.SERVICE_UNAVAILABLE
        content = answer.text.encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else content)
