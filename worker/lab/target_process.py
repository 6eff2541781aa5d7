"""The process that has the pool: `python -m worker.lab.target_process FD`.

It is told what to do by lines of JSON on stdin, and tells what it found by lines of JSON on stdout:

    in   Order                             who is under test (`target.py`)
    out  {"ready": true}                   or {"error": …}
    in   {"from_ns", "until_ns"}           the window that is measured
    out  {"tick": …} …                     four times a second, for the live view
    out  {"pool": …, "work": …}            when the link has ended and all work with it

The lab ends a run early by ending the generator, and with it the link. If the lab itself is gone,
the generator ends likewise, so this process never outlives it by more than a moment.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from time import monotonic_ns
from typing import Any

from worker.core.errors import WorkerError
from worker.core.tasks import cancel_all
from worker.lab.link import LabLink
from worker.lab.measure import NothingMeasured, PoolSampler
from worker.lab.processes import runner
from worker.lab.recorder import MeasuredWindow, WorkRecorder
from worker.lab.target import LabOrder, TargetProcess, make_target
from worker.telemetry.logging import configure_logging

TICK_SECONDS = 0.25
STOP_SECONDS = 5
"""How long closing may take; a frozen server does not take leave."""


def main() -> None:
    """Serve one order."""
    link = socket.socket(fileno=int(sys.argv[1]))
    configure_logging(level="error")
    line = sys.stdin.readline()
    if not line:
        return  # the lab has ended, or thought better of it
    order = LabOrder.model_validate_json(line)
    try:
        runner().run(_serve(order, link))
    except WorkerError as error:
        _tell({"error": str(error), "exit_code": error.exit_code})
    except _NobodyListens:
        pass  # the lab is gone


async def _serve(order: LabOrder, end_of_link: socket.socket) -> None:
    target = make_target(order)
    link = await LabLink.open(end_of_link)
    try:
        await target.start()
        _tell({"ready": True})
        if orders := await asyncio.to_thread(sys.stdin.readline):
            window = json.loads(orders)
            recorder = WorkRecorder(
                MeasuredWindow(window["from_ns"], window["until_ns"]), window["interval_seconds"]
            )
            # Work ends with the link, which ends with the window, or before if the lab is stopped.
            work = target.run(link, recorder)
            await _measure(target, recorder, work, window["interval_seconds"])
    finally:
        link.writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await target.stop()


async def _measure(
    target: TargetProcess, recorder: WorkRecorder, work: Coroutine[Any, Any, None], seconds: float
) -> None:
    sampler, window = PoolSampler(target.engine), recorder.window
    sampling = asyncio.create_task(sampler.run(window, seconds))
    ticking = asyncio.create_task(_tick(sampler, recorder))
    try:
        await work
    finally:
        cut = window.cut(monotonic_ns())
        await cancel_all([sampling, ticking])
    if not sampling.cancelled():
        sampling.result()
    with suppress(NothingMeasured):
        pool = sampler.report(still_out=sampler.snapshot().in_use)
        found = recorder.report(cut).model_dump(mode="json") if target.sees_ends else None
        _tell({"pool": pool.model_dump(mode="json"), "work": found})


async def _tick(sampler: PoolSampler, recorder: WorkRecorder) -> None:
    earlier = sampler.meter.snapshot()
    completed = 0
    while True:
        await asyncio.sleep(TICK_SECONDS)
        pool, meter = sampler.snapshot(), sampler.meter.snapshot()
        wait = meter.since(earlier).wait
        earlier = meter
        _tell(
            {
                "tick": {
                    "size": pool.size,
                    "max_overflow": pool.max_overflow,
                    "in_use": pool.in_use,
                    "waiting": pool.waiting,
                    "timeouts": meter.timeouts,
                    "throughput_per_second": (recorder.completed_ever - completed) / TICK_SECONDS,
                    "failed": recorder.failed_ever,
                    "wait_p50_seconds": wait.percentile(50),
                    "wait_p99_seconds": wait.percentile(99),
                }
            }
        )
        completed = recorder.completed_ever


class _NobodyListens(Exception):
    """The lab is gone."""


def _tell(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise _NobodyListens from None


if __name__ == "__main__":
    main()
