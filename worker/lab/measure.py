"""Measures a pool and the event loop around it, from within the process that has them.

Every number is of the window alone: counters and histograms are read at its begin and at its end,
and what lies between is kept. Work is measured beside it, in `recorder.py`; the server and the
processes from outside, in `observer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from time import monotonic_ns

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.pool.pool import PoolSnapshot, pool_of
from worker.database.pool.stats import PoolMeter
from worker.lab.durations import (
    Amount,
    Count,
    Durations,
    Model,
    durations_of,
    new_histogram,
    record,
)
from worker.lab.link import sleep_until
from worker.lab.measured import HoldTime, Pool, Wait
from worker.lab.recorder import MeasuredWindow
from worker.telemetry.histogram import Histogram

SAMPLE_SECONDS = 0.02


class PoolInterval(Model):
    """The pool within one interval."""

    busy: Amount
    overflow: Amount
    """Connections beyond `pool_size`, averaged over the interval."""
    waiting: Amount
    wait_p99_seconds: Amount | None = None
    timeouts: Count = 0
    connects: Count = 0


class PoolReport(Model):
    """What the pool and the event loop did within the window."""

    wait: Wait
    hold: HoldTime
    pool: Pool
    loop_lag_seconds: Durations
    intervals: tuple[PoolInterval, ...]


class _Span:
    """What was seen of the pool from one look to another: when, and how many connections."""

    def __init__(self, looks: Sequence[tuple[int, float, int, int]]) -> None:
        at_ns, busy_seconds, self.in_use, self.waiting = np.array(looks).T
        self.seconds = float(at_ns[-1] - at_ns[0]) / 1e9
        self.busy = float(busy_seconds[-1] - busy_seconds[0]) / self.seconds
        self._weights = np.diff(at_ns)

    def mean(self, values: NDArray[np.float64]) -> float:
        """Each look weighed with the time until the next: a busy loop takes few."""
        return float(np.average(values[:-1], weights=self._weights))


class PoolSampler:
    """Looks at the pool every 20 ms, and notes how late it came to look: the lag of the loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool = pool_of(engine)
        self._size = self._pool.snapshot().size
        # When, connection-seconds so far, in use, waiting.
        self._looks: list[tuple[int, float, int, int]] = []
        # At the begin of each interval, and at the end.
        self._readings: list[tuple[int, PoolMeter]] = []
        self._lag = new_histogram()

    def snapshot(self) -> PoolSnapshot:
        """The pool at this moment."""
        return self._pool.snapshot()

    @property
    def meter(self) -> PoolMeter:
        """The pool's counters and histograms since its begin."""
        return self._pool.meter

    async def run(self, window: MeasuredWindow, interval_seconds: float) -> None:
        """Sample until the window ends, or until cancelled: then it has been cut short."""
        interval_ns = round(interval_seconds * 1e9)
        await sleep_until(window.from_ns)
        try:
            while (now := self._look()) < window.until_ns:
                if now >= window.from_ns + len(self._readings) * interval_ns:
                    self._read()
                asked = min(now + round(SAMPLE_SECONDS * 1e9), window.until_ns)
                await sleep_until(asked)
                record(self._lag, (monotonic_ns() - asked) / 1e9)
        finally:
            self._read()

    def report(self, *, still_out: int) -> PoolReport:
        """What was found; `still_out` connections had not come back when all work had ended."""
        if len(self._looks) < 2:
            raise NothingMeasured
        meter, span = self._readings[-1][1].since(self._readings[0][1]), _Span(self._looks)
        return PoolReport(
            wait=Wait(
                seconds=durations_from_histogram(meter.wait),
                waited_share=_share_above_zero(meter.wait),
                timeouts=meter.timeouts,
                queue_mean=span.mean(span.waiting),
                queue_max=int(span.waiting.max()),
                max_to_median=_max_to_median(meter.wait),
            ),
            hold=HoldTime(
                seconds=durations_from_histogram(meter.use),
                query_seconds=durations_from_histogram(meter.query),
                idle_in_transaction_seconds=durations_from_histogram(meter.idle_in_transaction),
                commit_seconds=durations_from_histogram(meter.commit),
            ),
            pool=Pool(
                busy_mean=span.busy,
                busy_p95=float(np.quantile(span.in_use, 0.95, method="higher")),
                busy_max=int(span.in_use.max()),
                overflow_seconds=span.seconds * span.mean(span.in_use > self._size),
                connects=meter.created,
                connects_per_second=meter.created / span.seconds,
                connect_seconds=durations_from_histogram(meter.connect),
                closed=meter.closed,
                recycled=meter.recycled,
                invalidated=meter.invalidated,
                still_out=still_out,
            ),
            loop_lag_seconds=durations_of(self._lag),
            intervals=tuple(self._intervals()),
        )

    def _look(self) -> int:
        at_ns, busy, now = monotonic_ns(), self._pool.busy_seconds, self._pool.snapshot()
        self._looks.append((at_ns, busy, now.in_use, now.waiting))
        return at_ns

    def _read(self) -> None:
        self._readings.append((self._looks[-1][0], self._pool.meter.snapshot()))

    def _intervals(self) -> Iterator[PoolInterval]:
        for (low, earlier), (high, later) in pairwise(self._readings):
            looks = [look for look in self._looks if low <= look[0] <= high]
            if len(looks) > 1:
                meter, span = later.since(earlier), _Span(looks)
                yield PoolInterval(
                    busy=span.busy,
                    overflow=span.mean(np.maximum(span.in_use - self._size, 0)),
                    waiting=span.mean(span.waiting),
                    wait_p99_seconds=meter.wait.percentile(99) if meter.wait.count else None,
                    timeouts=meter.timeouts,
                    connects=meter.created,
                )


class NothingMeasured(Exception):
    """The run was stopped before its window began."""


def durations_from_histogram(histogram: Histogram) -> Durations:
    """The pool's own histogram as the lab keeps durations; mean and maximum stay exact."""
    copy = new_histogram()
    for seconds, count in histogram.values():
        record(copy, seconds, count)
    exact = {"mean": histogram.mean, "max": histogram.max} if histogram.count else {}
    return durations_of(copy).model_copy(update=exact)


def _share_above_zero(wait: Histogram) -> float:
    above = sum(count for seconds, count in wait.values() if seconds > 0)
    return above / wait.count if wait.count else 0.0


def _max_to_median(wait: Histogram) -> float | None:
    """Longest : median wait, of those that waited at all."""
    waits = [(seconds, count) for seconds, count in wait.values() if seconds > 0]
    half, seen = sum(count for _, count in waits) / 2, 0
    for seconds, count in waits:
        seen += count
        if seen >= half:
            return wait.max / seconds
    return None
