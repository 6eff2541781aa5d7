"""What `/metrics` shows of a pool.

Names: OpenTelemetry's semantic conventions for database client metrics; what they do not name is
`worker.db.*`. `docs/metrics.md` is generated from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from worker.database.pool.pool import FairPool, PoolSnapshot
from worker.database.pool.stats import PoolMeter
from worker.telemetry.histogram import Histogram
from worker.telemetry.instruments import Instrument, Read, Reading

POOL_NAME, STATE = "db.client.connection.pool.name", "db.client.connection.state"
SYSTEM = "db.system.name"

_C, _OURS = "db.client.connection", "worker.db.connection"
_CONNECTIONS = "{connection}"


def _duration(name: str, meaning: str) -> Instrument:
    return Instrument(name, "histogram", "s", meaning, (POOL_NAME,))


def _counter(name: str, unit: str, meaning: str) -> Instrument:
    return Instrument(name, "counter", unit, meaning, (POOL_NAME,))


def _gauge(name: str, unit: str, meaning: str) -> Instrument:
    return Instrument(name, "gauge", unit, meaning, (POOL_NAME,))


CONNECTIONS = Instrument(
    f"{_C}.count",
    "gauge",
    _CONNECTIONS,
    "Connections by state, `used` or `idle`; those that are just being opened count as used.",
    (POOL_NAME, STATE),
)
GAUGES: dict[Instrument, Callable[[PoolSnapshot], float]] = {
    _gauge(f"{_C}.idle.max", _CONNECTIONS, "Most idle connections: `pool_size`."): (
        lambda pool: pool.size
    ),
    _gauge(f"{_C}.max", _CONNECTIONS, "Most connections: `pool_size` + `max_overflow`."): (
        lambda pool: pool.size + pool.max_overflow
    ),
    _gauge(f"{_C}.pending_requests", "{request}", "Checkouts that wait for a connection."): (
        lambda pool: pool.waiting
    ),
    _gauge(f"{_OURS}.overflow", _CONNECTIONS, "Connections beyond `pool_size`."): (
        lambda pool: pool.overflow
    ),
    _gauge(f"{_OURS}.oldest_waiter_time", "s", "How long the first in the queue has waited."): (
        lambda pool: pool.oldest_waiter_seconds
    ),
}
COUNTERS: dict[Instrument, Callable[[PoolMeter], int]] = {
    _counter(f"{_C}.timeouts", "{timeout}", "Checkouts that gave up after `pool_timeout`."): (
        lambda meter: meter.timeouts
    ),
    _counter(f"{_OURS}.waits", "{request}", "Checkouts that found no free place."): (
        lambda meter: meter.waited
    ),
    _counter(f"{_OURS}.created", _CONNECTIONS, "Connections that were opened."): (
        lambda meter: meter.created
    ),
    _counter(f"{_OURS}.failed", "{attempt}", "Attempts to open a connection that failed."): (
        lambda meter: meter.failed
    ),
    _counter(f"{_OURS}.closed", _CONNECTIONS, "Connections that were closed, all told."): (
        lambda meter: meter.closed
    ),
    _counter(f"{_OURS}.recycled", _CONNECTIONS, "Of these: replaced because of their age."): (
        lambda meter: meter.recycled
    ),
    _counter(f"{_OURS}.invalidated", _CONNECTIONS, "Of these: broken."): (
        lambda meter: meter.invalidated
    ),
}
DURATIONS: dict[Instrument, Callable[[PoolMeter], Histogram]] = {
    _duration(
        f"{_C}.wait_time", "From asking for a connection to being let in; 0 where one was free."
    ): (lambda meter: meter.wait),
    _duration(f"{_C}.use_time", "From being let in until the connection is back."): (
        lambda meter: meter.use
    ),
    _duration(f"{_C}.create_time", "Opening a connection."): (lambda meter: meter.connect),
    Instrument(
        "db.client.operation.duration", "histogram", "s", "One statement.", (SYSTEM, POOL_NAME)
    ): (lambda meter: meter.query),
    _duration(f"{_OURS}.idle_in_transaction_time", "Each use: the time between its statements."): (
        lambda meter: meter.idle_in_transaction
    ),
    _duration(f"{_OURS}.commit_time", "One COMMIT."): (lambda meter: meter.commit),
    _duration(f"{_OURS}.rollback_time", "One ROLLBACK."): (lambda meter: meter.rollback),
}
INSTRUMENTS: tuple[Instrument, ...] = (CONNECTIONS, *GAUGES, *COUNTERS, *DURATIONS)


def reader_of(pool: Callable[[], FairPool]) -> Read:
    """Reads the instruments of a pool; `pool` finds it, since `engine.dispose()` replaces it."""

    def read() -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        it = pool()
        now, meter, name = it.snapshot(), it.meter, {POOL_NAME: it.name, SYSTEM: "postgresql"}
        states = (("used", now.in_use), ("idle", now.idle))
        yield CONNECTIONS, [(name | {STATE: state}, count) for state, count in states]
        for instrument, gauge in GAUGES.items():
            yield instrument, [(name, gauge(now))]
        for instrument, counter in COUNTERS.items():
            yield instrument, [(name, counter(meter))]
        for instrument, duration in DURATIONS.items():
            yield instrument, [(name, duration(meter))]

    return read
