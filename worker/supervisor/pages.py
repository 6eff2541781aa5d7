"""`/livez` and `/readyz` of several processes on one port, without the libraries of one.

The least of HTTP/1.1 that probes need: GET and HEAD, one request a connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

from worker.telemetry.listening import cannot_listen

REQUEST_SECONDS = 5
REQUEST_BYTES = 16_384

Page = Callable[[], tuple[bool, dict[str, Any]]]
"""Whether all is well, and the body that says so."""


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
                writer.write(self._answer(request))
                await writer.drain()
        writer.close()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            status, body = HTTPStatus.NOT_FOUND, {"error": "there are /livez and /readyz"}
        elif method not in {"GET", "HEAD"}:
            status, body = HTTPStatus.METHOD_NOT_ALLOWED, {"error": "only GET and HEAD"}
        else:
            well, body = page()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        content = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "Content-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else content)
