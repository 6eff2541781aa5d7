"""The pool of connections: bounded, fair, and measured.

SQLAlchemy's own pool is not fair (a newcomer may pass those who wait), and nothing tells how long
anybody waited. So a gate stands in front of it, as wide as the pool with its overflow: whoever is
let in finds a connection, or opens one, and never waits again. Nothing changes where connections
are taken: engines, sessions and connections all come through `_do_get`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import structlog
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only

from worker.database.pool.admission import Gate
from worker.database.pool.checkout import HOLD, Checkout, calling_place, where
from worker.database.pool.stats import PoolMeter

log = structlog.get_logger(__name__)

WARN_EVERY_SECONDS = 60
"""A pool that is exhausted for hours says so once a minute."""

WHILE_CONNECTING = "while a connection to the database was opened"
"""Noted on what is raised then: no statement has been sent, so none can be at fault."""

_latest: ContextVar[Checkout | None] = ContextVar("latest hold", default=None)


@contextmanager
def held_by(task: asyncio.Task[Any]) -> Iterator[None]:
    """Let the other task stand for this one, whose connection it uses meanwhile.

    Should it ask for a second one, it is told so.
    """
    hold = _latest.get()
    if hold is None:
        yield
        return
    own, hold.task = hold.task, id(task)
    try:
        yield
    finally:
        hold.task = own


class NestedCheckout(InvalidRequestError):
    """A task that holds a connection asked the same pool for a second one.

    With every place taken by tasks that do so, none of them would ever be let in.
    """


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at one moment, in connections."""

    size: int
    """Connections that are kept open."""
    max_overflow: int
    """Further ones that may be opened under load."""
    in_use: int
    """Places taken, those that are just being connected included."""
    idle: int
    """Open and not in use."""
    overflow: int
    """Beyond the size."""
    waiting: int
    """Checkouts that wait for a place."""
    oldest_waiter_seconds: float
    """How long the first of them has been waiting."""

    def __repr__(self) -> str:
        return (
            f"<pool of {self.size}+{self.max_overflow}: {self.in_use} in use, {self.idle} idle, "
            f"{self.overflow} overflow, {self.waiting} waiting"
            + (f" (first for {self.oldest_waiter_seconds:.3f} s)>" if self.waiting else ">")
        )


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """A connection that is out."""

    seconds: float
    where: str
    """The line of code that took it."""


class FairPool(AsyncAdaptedQueuePool):
    """A bounded pool that serves in the order of asking and measures what it does.

    `timeout` bounds the wait for a place, in seconds; then SQLAlchemy's `TimeoutError` is raised. A
    task that holds a connection and asks for a second gets `NestedCheckout` at once.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 30.0,
        **options: Any,
    ) -> None:
        if pool_size < 1 or max_overflow < 0:
            raise ValueError(
                f"pool_size={pool_size}, max_overflow={max_overflow}: this pool is bounded; "
                "set a size of at least 1 and an overflow of at least 0"
            )
        super().__init__(creator, pool_size, max_overflow, timeout, **options)
        self.meter = PoolMeter()
        self._gate = Gate(pool_size + max_overflow)
        self._holds: set[Checkout] = set()
        self._idle: set[ConnectionPoolEntry] = set()
        self._disposed = False
        self._warned_at = -float(WARN_EVERY_SECONDS)

    @property
    def name(self) -> str:
        """Its name, `db.client.connection.pool.name` in OpenTelemetry's words."""
        return self.logging_name or "pool"

    def snapshot(self) -> PoolSnapshot:
        """The pool as it is now."""
        size, in_use, idle = self.size(), self._gate.inside, len(self._idle)
        return PoolSnapshot(
            size=size,
            max_overflow=self._gate.places - size,
            in_use=in_use,
            idle=idle,
            overflow=max(0, in_use + idle - size),
            waiting=self._gate.waiting,
            oldest_waiter_seconds=self._gate.longest_wait_seconds,
        )

    @property
    def busy_seconds(self) -> float:
        """Connection-seconds in use so far, by the clock: its growth over a time is how many were
        in use on average."""
        return self._gate.place_seconds

    def held(self) -> list[CheckedOut]:
        """The connections that are out and where they were taken, the longest held first."""
        now = perf_counter()
        return [
            CheckedOut(now - hold.since, where(hold.place))
            for hold in sorted(self._holds, key=lambda hold: hold.since)
        ]

    def recreate(self) -> FairPool:
        """A pool in place of this one, behind the same gate and with the same meter.

        So the bound holds while connections of this one are still out.
        """
        pool = super().recreate()
        assert isinstance(pool, FairPool)
        pool.meter, pool._gate, pool._holds = self.meter, self._gate, self._holds
        return pool

    def dispose(self) -> None:
        """Close the idle connections, and those that are out as soon as they come back."""
        self._disposed = True
        self._idle.clear()
        super().dispose()

    def _do_get(self) -> ConnectionPoolEntry:
        outer = self._active_hold()
        self._enter()
        hold = Checkout(self._gate, id(asyncio.current_task()), calling_place(), outer)
        try:
            entry = super()._do_get()
        except BaseException as error:
            self._gate.leave()
            error.add_note(WHILE_CONNECTING)
            raise
        self._idle.discard(entry)
        self._holds.add(hold)
        _latest.set(hold)
        info = entry.record_info
        assert info is not None
        info[HOLD] = hold
        return entry

    def _enter(self) -> None:
        if self._gate.enter():
            self.meter.wait.record(0.0)
            return
        self.meter.waited += 1
        asked = perf_counter()
        try:
            let_in = await_only(self._gate.wait(self._timeout))
        finally:
            waited = perf_counter() - asked
            self.meter.wait.record(waited)
        if not let_in:
            raise self._exhausted(waited)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        info = record.record_info
        assert info is not None
        hold: Checkout = info.pop(HOLD)
        try:
            if self._disposed:
                record.close()
                return
            super()._do_return_conn(record)
            if record.dbapi_connection is not None:
                self._idle.add(record)
        finally:
            hold.active = False
            self._holds.discard(hold)
            self.meter.returned(hold)
            self._gate.leave()

    def _active_hold(self) -> Checkout | None:
        """The hold of the calling task in another pool; raise where it is one in this."""
        hold = _latest.get()
        while hold is not None and not hold.active:
            hold = hold.outer
        seen = hold
        while seen is not None:
            # A task that was started by the holder sees the hold, too, and may take one of its own.
            if seen.active and seen.gate is self._gate and seen.task == id(asyncio.current_task()):
                raise NestedCheckout(
                    "A task that holds a connection asked for a second one. The first was taken at "
                    f"{where(seen.place)}, the second was asked for at {where(calling_place())}. "
                    "Use the first, or give it back before"
                )
            seen = seen.outer
        return hold

    def _exhausted(self, waited: float) -> PoolTimeout:
        self.meter.timeouts += 1
        now = self.snapshot()
        oldest = next(iter(self.held()), None)
        longest = f", the longest for {oldest.seconds:.1f} s at {oldest.where}" if oldest else ""
        sentence = (
            f"No connection came free within {waited:.2f} s: {now.in_use} of {self._gate.places} "
            f"(pool_size {now.size} + max_overflow {now.max_overflow}) are in use{longest}; "
            f"{now.waiting} more wait. Hold them for a shorter time, or raise "
            "WORKER_DATABASE__POOL_SIZE"
        )
        if perf_counter() - self._warned_at >= WARN_EVERY_SECONDS:
            self._warned_at = perf_counter()
            log.warning(
                "the pool is exhausted",
                pool=self.name,
                timeouts=self.meter.timeouts,
                waiting=now.waiting,
                reason=sentence,
            )
        return PoolTimeout(sentence, code="3o7r")


def pool_of(engine: AsyncEngine) -> FairPool:
    """The pool of an engine that `make_engine` made."""
    pool = engine.sync_engine.pool
    assert isinstance(pool, FairPool)
    return pool
