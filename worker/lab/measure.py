"""Measures a pool and the event loop around it, from within the process that has them.

Every number is of the window alone: counters and histograms are read at its begin and at its end,
and what lies between is kept. Work is measured beside it, in `recorder.py`; the server and the
processes from outside, in `observer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic_ns

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
from worker.lab.recorder import Window
from worker.lab.results import Hold, Pool, Wait
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
    hold: Hold
    pool: Pool
    loop_lag_seconds: Durations
    intervals: tuple[PoolInterval, ...]


@dataclass(frozen=True, slots=True)
class _Sample:
    at_ns: int
    busy_seconds: float
    """Connection-seconds so far."""
    in_use: int
    waiting: int


class PoolSampler:
    """Looks at the pool every 20 ms, and notes how late it came to look: the lag of the loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool = pool_of(engine)
        self._size = self._pool.snapshot().size
        self._samples: list[_Sample] = []
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

    async def run(self, window: Window, interval_seconds: float) -> None:
        """Sample until the window ends, or until cancelled: then it has been cut short."""
        interval_ns = round(interval_seconds * 1e9)
        await sleep_until(window.from_ns)
        try:
            while self._look() < window.until_ns:
                if self._samples[-1].at_ns >= window.from_ns + len(self._readings) * interval_ns:
                    self._read()
                asked = min(self._samples[-1].at_ns + round(SAMPLE_SECONDS * 1e9), window.until_ns)
                await sleep_until(asked)
                record(self._lag, (monotonic_ns() - asked) / 1e9)
        finally:
            self._read()

    def report(self, *, still_out: int) -> PoolReport:
        """What was found; `still_out` connections had not come back when all work had ended."""
        if len(self._samples) < 2:
            raise NothingMeasured
        span = self._readings[-1][1].since(self._readings[0][1])
        seconds = _seconds(self._samples)
        in_use = sorted(sample.in_use for sample in self._samples)
        return PoolReport(
            wait=Wait(
                seconds=durations_from_histogram(span.wait),
                waited_share=_share_above_zero(span.wait),
                timeouts=span.timeouts,
                queue_mean=_over_time(self._samples, lambda sample: sample.waiting),
                queue_max=max(sample.waiting for sample in self._samples),
                max_to_median=_max_to_median(span.wait),
            ),
            hold=Hold(
                seconds=durations_from_histogram(span.use),
                query_seconds=durations_from_histogram(span.query),
                idle_in_transaction_seconds=durations_from_histogram(span.idle_in_transaction),
                commit_seconds=durations_from_histogram(span.commit),
            ),
            pool=Pool(
                busy_mean=_busy(self._samples),
                busy_p95=in_use[int(len(in_use) * 0.95)],
                busy_max=in_use[-1],
                overflow_seconds=seconds
                * _over_time(self._samples, lambda sample: sample.in_use > self._size),
                connects=span.created,
                connects_per_second=span.created / seconds,
                connect_seconds=durations_from_histogram(span.connect),
                closed=span.closed,
                recycled=span.recycled,
                invalidated=span.invalidated,
                still_out=still_out,
            ),
            loop_lag_seconds=durations_of(self._lag),
            intervals=tuple(self._intervals()),
        )

    def _look(self) -> int:
        at_ns, busy, now = monotonic_ns(), self._pool.busy_seconds, self._pool.snapshot()
        self._samples.append(_Sample(at_ns, busy, now.in_use, now.waiting))
        return at_ns

    def _read(self) -> None:
        self._readings.append((self._samples[-1].at_ns, self._pool.meter.snapshot()))

    def _intervals(self) -> Iterator[PoolInterval]:
        for (low, earlier), (high, later) in pairwise(self._readings):
            samples = [sample for sample in self._samples if low <= sample.at_ns <= high]
            if len(samples) > 1:
                yield self._interval(samples, later.since(earlier))

    def _interval(self, samples: Sequence[_Sample], span: PoolMeter) -> PoolInterval:
        return PoolInterval(
            busy=_busy(samples),
            overflow=_over_time(samples, lambda sample: max(sample.in_use - self._size, 0)),
            waiting=_over_time(samples, lambda sample: sample.waiting),
            wait_p99_seconds=span.wait.percentile(99) if span.wait.count else None,
            timeouts=span.timeouts,
            connects=span.created,
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


def _seconds(samples: Sequence[_Sample]) -> float:
    return (samples[-1].at_ns - samples[0].at_ns) / 1e9


def _busy(samples: Sequence[_Sample]) -> float:
    return (samples[-1].busy_seconds - samples[0].busy_seconds) / _seconds(samples)


def _over_time(samples: Sequence[_Sample], value: Callable[[_Sample], float]) -> float:
    """The mean, each sample weighed with the time until the next: a busy loop takes few."""
    area = sum(value(here) * (then.at_ns - here.at_ns) for here, then in pairwise(samples))
    return area / (samples[-1].at_ns - samples[0].at_ns)


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
