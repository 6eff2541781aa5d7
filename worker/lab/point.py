"""Looks at a point from outside, and puts together what was found about it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic_ns
from typing import Any

import psutil

from worker.core.tasks import cancel_all
from worker.lab.durations import durations_from_counts
from worker.lab.link import sleep_until
from worker.lab.measure import PoolReport
from worker.lab.measured import Host, MeasuredLoad, Point, Process, Sample, Server
from worker.lab.observer import CpuMeter, ServerObserver, host_seconds, process_seconds
from worker.lab.recorder import MeasuredWindow, WorkReport, jain_index
from worker.lab.sandbox import Sandbox, play_restart
from worker.lab.scenario import LoadSettings as LoadPart
from worker.lab.scenario import Restart
from worker.lab.setting import Setting

LEAD_NS = 200_000_000
"""From the last order to the begin of the load: time for both processes to read it."""


@dataclass
class Timing:
    """When a point begins, is measured, and ends, on the monotonic clock."""

    load: LoadPart
    begin_ns: int
    from_ns: int
    until_ns: int
    interval_seconds: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_ns: int | None = None

    @classmethod
    def of(cls, load: LoadPart) -> Timing:
        """Beginning in a moment."""
        begin_ns = monotonic_ns() + LEAD_NS
        from_ns = begin_ns + round(load.warm_up_seconds * 1e9)
        until_ns = from_ns + round(load.measure_seconds * 1e9)
        # Enough intervals to see a trend, whatever the length.
        interval = 1.0 if load.measure_seconds >= 8 else load.measure_seconds / 8
        return cls(load, begin_ns, from_ns, until_ns, interval)

    @property
    def window(self) -> dict[str, Any]:
        """What both processes are told."""
        names = ("begin_ns", "from_ns", "until_ns", "interval_seconds")
        return {name: getattr(self, name) for name in names}

    @property
    def seconds(self) -> float:
        """From the begin of the load to its end."""
        return (self.until_ns - self.begin_ns) / 1e9

    @property
    def measured(self) -> MeasuredWindow:
        """What of the window has passed."""
        return MeasuredWindow(self.from_ns, self.until_ns).cut(self.ended_ns or monotonic_ns())

    def end(self) -> None:
        """The work has ended, in time or before."""
        self.ended_ns = monotonic_ns()
        self.ended.set()


@dataclass(frozen=True)
class Outside:
    """What only others than the process under test can see."""

    server: Server
    target_cores: float | None
    generator_cores: float | None
    host: Host


@dataclass(frozen=True)
class PointOutcome:
    """All that was found about a point."""

    pool: PoolReport
    work: WorkReport
    punctuality: dict[str, Any]
    """What the generator tells (`generator.py`)."""
    outside: Outside


async def look_on(
    sandbox: Sandbox,
    restart: Restart | None,
    timing: Timing,
    *,
    processes: tuple[int, int, int | None],
) -> Outside:
    """Look at server and processes during the window; also play the restart, if there is one.

    `processes` are the one under test, the generator, and PostgreSQL's first.
    """
    observer = ServerObserver(sandbox)
    await sleep_until(timing.from_ns)
    await observer.begin()
    target, generator, postmaster = processes
    meters = [
        CpuMeter(process_seconds(target)),
        CpuMeter(process_seconds(generator)),
        CpuMeter(process_seconds(postmaster, children=True)),
        CpuMeter(process_seconds(os.getpid())),
    ]
    whole = CpuMeter(host_seconds)
    tasks = [
        asyncio.create_task(observer.watch()),
        asyncio.create_task(play_restart(sandbox, restart)),
    ]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout((timing.until_ns - monotonic_ns()) / 1e9):
                await timing.ended.wait()
        cores, used = [each.cores() for each in meters], whole.cores() or 0.0
    finally:
        await cancel_all(tasks)
    server = await observer.end()
    others = max(used - sum(each or 0 for each in cores), 0)
    host = Host(cores=psutil.cpu_count() or 1, cpu_cores=used, others_cpu_cores=others)
    return Outside(server.model_copy(update={"cpu_cores": cores[2]}), cores[0], cores[1], host)


def assemble(
    setting: Setting, found: PointOutcome, timing: Timing, *, started_at: datetime
) -> Point:
    """The point."""
    work, pool, outside = found.work, found.pool, found.outside
    measured, seconds = timing.measured, timing.interval_seconds
    # Where nobody waited there is nothing to be shared out.
    jain = jain_index(work.mean_wait_by_slot) if pool.wait.waited_share else None
    lateness = found.punctuality["lateness_microseconds"]
    target, generator = outside.target_cores, outside.generator_cores
    return Point(
        setting=setting,
        started_at=started_at,
        warm_up_seconds=(timing.from_ns - timing.begin_ns) / 1e9,
        measured_seconds=measured.seconds,
        partial=measured.until_ns < timing.until_ns,
        load=MeasuredLoad(
            **{name: getattr(work, name) for name in ("started", "dropped", "completed", "failed")},
            **{name: found.punctuality[name] for name in ("intended", "late")},
            lateness_seconds=durations_from_counts((late / 1e6, count) for late, count in lateness),
            arrivals="closed" if timing.load.kind == "closed" else timing.load.arrivals,
        ),
        throughput_per_second=work.ended_in_window / measured.seconds,
        latency_seconds=work.latency_seconds,
        wait=pool.wait.model_copy(update={"jain_index": jain}),
        hold=pool.hold,
        pool=pool.pool,
        errors=work.errors,
        server=outside.server,
        worker=None
        if target is None
        else Process(cpu_cores=target, loop_lag_seconds=pool.loop_lag_seconds),
        generator=None if generator is None else Process(cpu_cores=generator),
        host=outside.host,
        sample_seconds=seconds,
        samples=tuple(
            Sample(at_seconds=number * seconds, **of_pool.model_dump(), **of_work.model_dump())
            for number, (of_pool, of_work) in enumerate(
                zip(pool.intervals, work.intervals, strict=False)
            )
        ),
    )
