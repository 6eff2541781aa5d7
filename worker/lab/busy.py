"""How many connections are checked out, integrated over time: exact, whatever the sampling."""

from __future__ import annotations

from time import monotonic_ns

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


class BusyTime:
    """Connection-seconds that a pool was in use, and seconds that it was in overflow.

    Counted at each checkout and checkin by the clock, not from how long each was held: so Little's
    law, which says that the two agree, can be checked.
    """

    def __init__(self, engine: AsyncEngine, pool_size: int) -> None:
        self._pool_size = pool_size
        self._then = monotonic_ns()
        self._busy_ns = self._overflow_ns = 0
        self._out: set[object] = set()
        event.listen(engine.sync_engine, "checkout", self._checkout)
        event.listen(engine.sync_engine, "checkin", self._checkin)

    def read(self) -> tuple[int, int, int]:
        """Now, connection-nanoseconds in use, and nanoseconds in overflow, all since the begin."""
        self._advance()
        return self._then, self._busy_ns, self._overflow_ns

    @property
    def in_use(self) -> int:
        """Connections that are checked out."""
        return len(self._out)

    def _checkout(self, _connection: object, entry: object, _proxy: object) -> None:
        self._advance()
        self._out.add(entry)

    def _checkin(self, _connection: object, entry: object) -> None:
        # Also of one that could not be opened anew, and so was never out.
        self._advance()
        self._out.discard(entry)

    def _advance(self) -> None:
        now = monotonic_ns()
        passed = now - self._then
        self._busy_ns += len(self._out) * passed
        if len(self._out) > self._pool_size:
            self._overflow_ns += passed
        self._then = now
