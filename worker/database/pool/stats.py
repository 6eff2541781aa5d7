"""What the pool's connections are waited for, used for, and how long each takes.

What SQLAlchemy has events for is measured by events. It has none for the end of a COMMIT or
ROLLBACK, so the two methods of the engine's dialect are timed where they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from worker.database.pool.checkout import HOLD, Checkout, hold_of
from worker.telemetry.histogram import Histogram

_CONNECTING = "worker.connecting"


class PoolMeter:
    """Measures of one engine's pool since its making; all durations in seconds.

    It stays the same when the pool is replaced by `engine.dispose()`. Take `snapshot()` twice and
    `since` for the span between.
    """

    __slots__ = (
        "closed",
        "commit",
        "connect",
        "created",
        "failed",
        "idle_in_transaction",
        "invalidated",
        "query",
        "recycled",
        "rollback",
        "timeouts",
        "use",
        "wait",
        "waited",
    )

    DURATIONS = ("wait", "use", "query", "idle_in_transaction", "commit", "rollback", "connect")
    COUNTS = ("waited", "timeouts", "created", "failed", "closed", "recycled", "invalidated")

    def __init__(self) -> None:
        self.wait = Histogram()
        """From asking for a connection to being let in; 0 where a place was free. Those that timed
        out are counted too."""
        self.use = Histogram()
        """From being let in until the connection is back; the opening of a new one included."""
        self.query = Histogram()
        """Each statement, the BEGIN before the first included."""
        self.idle_in_transaction = Histogram()
        """Each use: how long its transactions lay idle between statements, all told."""
        self.commit = Histogram()
        """Each COMMIT."""
        self.rollback = Histogram()
        """Each ROLLBACK."""
        self.connect = Histogram()
        """Each opening of a connection that succeeded, the driver's preparations included."""
        self.waited = 0
        """Checkouts that found no free place."""
        self.timeouts = 0
        """Checkouts that gave up after `pool_timeout`."""
        self.created = 0
        """Connections that were opened."""
        self.failed = 0
        """Attempts to open one that failed."""
        self.closed = 0
        """Connections that were closed, for whatever reason; `created - closed` are open."""
        self.recycled = 0
        """Of these: too old, or from before the pool was invalidated, and so replaced."""
        self.invalidated = 0
        """Of these: broken."""

    def snapshot(self) -> PoolMeter:
        """The measures as they are now."""
        twin = PoolMeter()
        for name in self.DURATIONS:
            setattr(twin, name, getattr(self, name).copy())
        for name in self.COUNTS:
            setattr(twin, name, getattr(self, name))
        return twin

    def since(self, earlier: PoolMeter) -> PoolMeter:
        """What was measured after the snapshot `earlier` was taken."""
        span = PoolMeter()
        for name in self.DURATIONS:
            setattr(span, name, getattr(self, name).since(getattr(earlier, name)))
        for name in self.COUNTS:
            setattr(span, name, getattr(self, name) - getattr(earlier, name))
        return span

    def returned(self, hold: Checkout) -> None:
        """A connection is back."""
        self.use.record(perf_counter() - hold.since)
        self.idle_in_transaction.record(hold.idle)

    def __repr__(self) -> str:
        counts = " ".join(f"{name}={getattr(self, name)}" for name in self.COUNTS)
        return f"<PoolMeter {counts} wait={self.wait!r} use={self.use!r}>"


def attach(meter: PoolMeter, engine: AsyncEngine) -> None:
    """Have the meter measure what the engine does with its connections."""
    _measure_statements(meter, engine)
    _measure_ends(meter, engine.dialect)
    _count_connections(meter, engine)


def _measure_statements(meter: PoolMeter, engine: AsyncEngine) -> None:
    query = meter.query

    def measured(execute: Callable[[], object], context: Any) -> bool:
        hold = None if context is None else hold_of(context.root_connection.connection)
        if hold is None:  # what SQLAlchemy asks the server as it opens a first connection
            execute()
            return True
        autocommit = context.execution_options.get("isolation_level") == "AUTOCOMMIT"
        started = perf_counter()
        hold.resume(started)
        try:
            execute()
        finally:
            ended = perf_counter()
            query.record(ended - started)
            hold.pause(ended, in_transaction=not autocommit)
        return True

    def execute(cursor: DBAPICursor, statement: str, parameters: Any, context: Any) -> bool:
        return measured(lambda: cursor.execute(statement, parameters), context)

    def execute_many(cursor: DBAPICursor, statement: str, parameters: Any, context: Any) -> bool:
        return measured(lambda: cursor.executemany(statement, parameters), context)

    def execute_plain(cursor: DBAPICursor, statement: str, context: Any) -> bool:
        return measured(lambda: cursor.execute(statement), context)

    event.listen(engine.sync_engine, "do_execute", execute)
    event.listen(engine.sync_engine, "do_executemany", execute_many)
    event.listen(engine.sync_engine, "do_execute_no_params", execute_plain)


def _measure_ends(meter: PoolMeter, dialect: Dialect) -> None:
    def timed(
        end: Callable[[PoolProxiedConnection], None], histogram: Histogram
    ) -> Callable[[PoolProxiedConnection], None]:
        def measured(connection: PoolProxiedConnection) -> None:
            hold = hold_of(connection)
            if hold is None or not hold.in_transaction:
                end(connection)  # nothing to end: the driver does not trouble the server
                return
            started = perf_counter()
            hold.resume(started)
            try:
                end(connection)
            finally:
                ended = perf_counter()
                histogram.record(ended - started)
                hold.pause(ended, in_transaction=False)

        return measured

    commit, rollback = dialect.do_commit, dialect.do_rollback
    dialect.do_commit = timed(commit, meter.commit)  # type: ignore[method-assign, assignment]
    dialect.do_rollback = timed(rollback, meter.rollback)  # type: ignore[method-assign, assignment]


def _count_connections(meter: PoolMeter, engine: AsyncEngine) -> None:
    def connect(dialect: Dialect, entry: ConnectionPoolEntry, args: Any, options: Any) -> Any:
        started = perf_counter()
        try:
            connection = dialect.connect(*args, **options)
        except BaseException:
            meter.failed += 1
            raise
        info = entry.record_info
        assert info is not None
        info[_CONNECTING] = started
        return connection

    def connected(_: object, entry: ConnectionPoolEntry) -> None:
        info = entry.record_info
        assert info is not None
        meter.connect.record(perf_counter() - info.pop(_CONNECTING))
        meter.created += 1

    def closed(_: object, entry: ConnectionPoolEntry) -> None:
        meter.closed += 1
        # Checked out, but not yet handed over: it is being replaced.
        info = entry.record_info
        if info and HOLD in info and not entry.in_use:
            meter.recycled += 1

    def closed_detached(_: object) -> None:
        meter.closed += 1

    def invalidated(*_: object) -> None:
        meter.invalidated += 1

    pool = engine.sync_engine.pool
    event.listen(engine.sync_engine, "do_connect", connect)
    event.listen(pool, "connect", connected)
    event.listen(pool, "close", closed)
    event.listen(pool, "close_detached", closed_detached)
    event.listen(pool, "invalidate", invalidated)
