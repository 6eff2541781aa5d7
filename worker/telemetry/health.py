"""`/livez` and `/readyz`: whether the worker runs, and whether it can work.

GET /livez    200 as long as the process answers
GET /readyz   200, or 503 with what is not ready, why, and since when
GET /metrics  what is measured, for Prometheus (`metrics.py`)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from aiohttp import web

from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.listening import cannot_listen
from worker.telemetry.metrics import Metrics
from worker.telemetry.readiness import Component

log = structlog.get_logger(__name__)

READY = Instrument(
    "worker.ready", "gauge", "1", "1 where a part is ready, else 0; `/readyz` says why.", ("part",)
)
FAILURES = Instrument(
    "worker.readiness.failures",
    "counter",
    "{failure}",
    "Times that a part was ready and no longer is.",
    ("part",),
)
CONNECTIONS = Instrument(
    "worker.broker.connections",
    "counter",
    "{connection}",
    "Connections to the broker that were opened: the first, and one for each reconnect.",
    ("part",),
)
INSTRUMENTS: tuple[Instrument, ...] = (READY, FAILURES, CONNECTIONS)


class Health:
    """Serves the health pages while it is entered."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self.port = host, port
        self.metrics = Metrics()
        self.metrics.add(self.read)
        self._parts: dict[str, Component] = {}
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self.metrics.page)
        self._runner = web.AppRunner(app, access_log=None)

    def part(self, name: str) -> Component:
        """A part of the worker that readiness depends on."""
        return self._parts.setdefault(name, Component(name))

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """What `/readyz` shows, for `/metrics`."""
        yield READY, [({"part": part.name}, part.ready) for part in self._parts.values()]
        yield FAILURES, [({"part": part.name}, part.failures) for part in self._parts.values()]
        connected = (part for part in self._parts.values() if part.connections)
        yield CONNECTIONS, [({"part": part.name}, part.connections) for part in connected]

    @property
    def ready(self) -> bool:
        """Whether every part is well."""
        return all(part.ready for part in self._parts.values())

    @property
    def url(self) -> str:
        """Where `/readyz` is, once it is served."""
        return f"http://{self._host}:{self.port}/readyz"

    def as_json(self) -> dict[str, Any]:
        """What `/readyz` shows."""
        parts = {part.name: part.as_json() for part in self._parts.values()}
        return {"ready": self.ready, "parts": parts}

    async def __aenter__(self) -> Health:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise cannot_listen(self._host, self.port, error) from error
        self.port = self._runner.addresses[0][1]
        log.info("health pages", url=self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.json_response(self.as_json(), status=200 if self.ready else 503)
