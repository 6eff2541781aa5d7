"""One point of the results, put together from what the processes told and what was seen outside."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic_ns
from typing import Any, Literal

import psutil

from worker.lab.durations import Durations, durations_of, new_histogram, record
from worker.lab.link import sleep_until
from worker.lab.measure import PoolInterval, PoolReport
from worker.lab.observer import CpuMeter, ServerObserver, host_seconds, process_seconds
from worker.lab.recorder import Window, WorkInterval, WorkReport, jain_index
from worker.lab.results import Host, Load, Point, Process, Sample, Server
from worker.lab.sandbox import Sandbox, play_restart
from worker.lab.scenario import Load as LoadPart
from worker.lab.scenario import Scenario
from worker.lab.setting import Setting

LEAD_NS = 200_000_000
"""From the last order to the begin of the load: time for both processes to read it."""


@dataclass
class Timing:
    """When a point begins, is measured, and ends, on the monotonic clock."""

    begin_ns: int
    from_ns: int
    until_ns: int
    interval_seconds: float
    arrivals: Literal["poisson", "constant", "burst", "closed"]
    ended: asyncio.Event
    ended_ns: int | None = None

    @classmethod
    def of(cls, load: LoadPart) -> Timing:
        """Beginning in a moment."""
        begin_ns = monotonic_ns() + LEAD_NS
        from_ns = begin_ns + round(load.warm_up_seconds * 1e9)
        return cls(
            begin_ns,
            from_ns,
            from_ns + round(load.measure_seconds * 1e9),
            # Enough intervals to see a trend, whatever the length.
            interval_seconds=1.0 if load.measure_seconds >= 8 else load.measure_seconds / 8,
            arrivals="closed" if load.kind == "closed" else load.arrivals,
            ended=asyncio.Event(),
        )

    @property
    def window(self) -> dict[str, Any]:
        """What subject and generator are told."""
        return {
            "from_ns": self.from_ns,
            "until_ns": self.until_ns,
            "interval_seconds": self.interval_seconds,
        }

    @property
    def seconds(self) -> float:
        """From the begin of the load to its end."""
        return (self.until_ns - self.begin_ns) / 1e9

    @property
    def measured(self) -> Window:
        """What of the window has passed."""
        end = monotonic_ns() if self.ended_ns is None else self.ended_ns
        return Window(self.from_ns, self.until_ns).cut(end)

    def end(self) -> None:
        """The work has ended, in time or before."""
        self.ended_ns = monotonic_ns()
        self.ended.set()


@dataclass(frozen=True)
class Outside:
    """What only others than the subject can see."""

    server: Server
    subject_cores: float | None
    generator_cores: float | None
    host: Host


@dataclass(frozen=True)
class Parts:
    """All that was found about a point."""

    pool: PoolReport
    work: WorkReport
    punctuality: dict[str, Any]
    """What the generator tells (`generator.py`)."""
    outside: Outside


async def look_on(
    sandbox: Sandbox,
    postmaster: int | None,
    scenario: Scenario,
    timing: Timing,
    *,
    subject: int,
    generator: int,
) -> Outside:
    """Look at server and processes during the window; also play the restart, if there is one."""
    observer = ServerObserver(sandbox)
    await sleep_until(timing.from_ns)
    await observer.begin()
    processes = [
        CpuMeter(process_seconds(subject)),
        CpuMeter(process_seconds(generator)),
        CpuMeter(process_seconds(postmaster, children=True)),
        CpuMeter(process_seconds(os.getpid())),
    ]
    host = CpuMeter(host_seconds)
    watching = asyncio.create_task(observer.watch())
    playing = asyncio.create_task(play_restart(sandbox, scenario.restart))
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout((timing.until_ns - monotonic_ns()) / 1e9):
                await timing.ended.wait()
        cores = [each.cores() for each in processes]
        used = host.cores() or 0.0
    finally:
        for task in (watching, playing):
            task.cancel()
        await asyncio.gather(watching, playing, return_exceptions=True)
    server = await observer.end()
    others = max(used - sum(each or 0 for each in cores), 0)
    return Outside(
        server.model_copy(update={"cpu_cores": cores[2]}),
        subject_cores=cores[0],
        generator_cores=cores[1],
        host=Host(cores=psutil.cpu_count() or 1, cpu_cores=used, others_cpu_cores=others),
    )


def assemble(
    setting: Setting,
    parts: Parts,
    timing: Timing,
    *,
    started_at: datetime,
    repeat: int,
    order: int,
) -> Point:
    """The point."""
    work, pool, outside = parts.work, parts.pool, parts.outside
    measured = timing.measured
    # Where nobody waited there is nothing to be shared out.
    jain = jain_index(work.mean_wait_by_slot) if pool.wait.waited_share else None
    return Point(
        setting=setting,
        repeat=repeat,
        order=order,
        started_at=started_at,
        warm_up_seconds=(timing.from_ns - timing.begin_ns) / 1e9,
        measured_seconds=measured.seconds,
        partial=measured.until_ns < timing.until_ns,
        load=Load(
            intended=parts.punctuality["intended"],
            late=parts.punctuality["late"],
            started=work.started,
            dropped=work.dropped,
            completed=work.completed,
            failed=work.failed,
            lateness_seconds=_lateness(parts.punctuality["lateness_microseconds"]),
            arrivals=timing.arrivals,
        ),
        throughput_per_second=work.ended_in_window / measured.seconds,
        latency_seconds=work.latency_seconds,
        wait=pool.wait.model_copy(update={"jain_index": jain}),
        hold=pool.hold,
        pool=pool.pool,
        errors=work.errors,
        server=outside.server,
        worker=_process(outside.subject_cores, pool.loop_lag_seconds),
        generator=_process(outside.generator_cores, None),
        host=outside.host,
        sample_seconds=timing.interval_seconds,
        samples=tuple(
            _sample(number, timing.interval_seconds, *pair)
            for number, pair in enumerate(zip(pool.intervals, work.intervals, strict=False))
        ),
    )


def _sample(number: int, seconds: float, pool: PoolInterval, work: WorkInterval) -> Sample:
    return Sample(
        at_seconds=number * seconds,
        busy=pool.busy,
        overflow=pool.overflow,
        waiting=pool.waiting,
        throughput_per_second=work.completed / seconds,
        wait_p99_seconds=pool.wait_p99_seconds,
        latency_p99_seconds=work.latency_p99_seconds,
        timeouts=pool.timeouts,
        errors=work.errors,
        connects=pool.connects,
    )


def _lateness(by_microseconds: list[tuple[int, int]]) -> Durations:
    histogram = new_histogram()
    for microseconds, count in by_microseconds:
        record(histogram, microseconds / 1e6, count)
    return durations_of(histogram)


def _process(cores: float | None, lag: Durations | None) -> Process | None:
    return None if cores is None else Process(cpu_cores=cores, loop_lag_seconds=lag)
