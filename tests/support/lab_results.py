"""Results of the lab that were never measured: a queue with c servers, simulated.

It knows nothing of `worker.lab.queueing`: it walks through events in order of time, and counts what
is busy and waiting at each moment. So what the lab works out can be compared with it.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from worker.lab.durations import durations_from
from worker.lab.measured import HoldTime, MeasuredLoad, Point, Pool, Process, Sample, Server, Wait
from worker.lab.results import About, Machine, Objective, Result
from worker.lab.setting import Setting

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
Holds = Callable[[np.random.Generator], float]


def exponential(mean_seconds: float) -> Holds:
    return lambda random: float(random.exponential(mean_seconds))


def always(seconds: float) -> Holds:
    return lambda _: seconds


def bimodal(short: float = 0.002, long: float = 2.0, long_share: float = 0.01) -> Holds:
    return lambda random: long if random.random() < long_share else short


@dataclass
class Checkout:
    arrived: float
    began: float = 0.0
    ended: float = 0.0


@dataclass
class Queue:
    """First come, first served, by `servers` connections; at most `room` may wait."""

    servers: int
    holds: Holds
    random: np.random.Generator
    room: int = 1_000
    done: list[Checkout] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)

    def open(self, rate: float, until: float) -> None:
        arrivals = np.cumsum(self.random.exponential(1 / rate, int(rate * until * 1.5) + 10))
        self._run([float(at) for at in arrivals if at < until], again=False, until=until)

    def closed(self, clients: int, until: float) -> None:
        self._run([0.0] * clients, again=True, until=until)

    def _run(self, arrivals: Sequence[float], *, again: bool, until: float) -> None:
        events: list[tuple[float, int, Checkout | None]] = []
        for number, at in enumerate(arrivals):
            heapq.heappush(events, (at, number, None))
        number, busy, waiting = len(arrivals), 0, deque[Checkout]()
        while events:
            now, _, ending = heapq.heappop(events)
            if ending is None:
                checkout = Checkout(now)
                if busy + len(waiting) >= self.servers + self.room:
                    self.dropped.append(now)
                    continue
                waiting.append(checkout)
            else:
                self.done.append(ending)
                busy -= 1
                if again and now < until:
                    number += 1
                    heapq.heappush(events, (now, number, None))
            while waiting and busy < self.servers:
                checkout = waiting.popleft()
                checkout.began, busy, number = now, busy + 1, number + 1
                checkout.ended = now + self.holds(self.random)
                heapq.heappush(events, (checkout.ended, number, checkout))


def make_point(
    pool_size: int,
    *,
    max_overflow: int = 0,
    rate: float | None = None,
    clients: int | None = None,
    holds: Holds | None = None,
    seconds: float = 20,
    warm_up: float = 2,
    repeat: int = 0,
    seed: int = 1,
    room: int = 1_000,
    **changes: Any,
) -> Point:
    """A point as the lab would have measured it; `changes` replaces whole parts of it."""
    queue = Queue(
        pool_size + max_overflow,
        holds or exponential(0.02),
        np.random.default_rng((seed, repeat, pool_size)),
        room,
    )
    end = warm_up + seconds
    if clients is None:
        assert rate is not None
        queue.open(rate, end)
    else:
        queue.closed(clients, end)
    seen = [each for each in queue.done if warm_up <= each.ended < end]
    waits = [each.began - each.arrived for each in seen]
    moments = np.arange(warm_up, end, 0.02)
    busy = _count(moments, [(each.began, each.ended) for each in queue.done])
    waiting = _count(moments, [(each.arrived, each.began) for each in queue.done])
    intended = sum(warm_up <= each.arrived < end for each in queue.done)
    dropped = sum(at >= warm_up for at in queue.dropped)
    parts: dict[str, Any] = {
        "setting": Setting(
            pool_size=pool_size,
            max_overflow=max_overflow,
            load="open" if clients is None else "closed",
            rate_per_second=rate,
            clients=clients,
        ),
        "repeat": repeat,
        "started_at": NOON,
        "warm_up_seconds": warm_up,
        "measured_seconds": seconds,
        "load": MeasuredLoad(
            intended=intended + dropped,
            started=intended,
            dropped=dropped,
            completed=len(seen),
            arrivals="poisson" if clients is None else "closed",
        ),
        "throughput_per_second": len(seen) / seconds,
        "latency_seconds": durations_from(each.ended - each.arrived for each in seen),
        "wait": Wait(
            seconds=durations_from(waits),
            waited_share=sum(wait > 0 for wait in waits) / max(len(waits), 1),
            queue_mean=float(waiting.mean()),
            queue_max=int(waiting.max()),
        ),
        "hold": HoldTime(seconds=durations_from(each.ended - each.began for each in seen)),
        "pool": Pool(
            busy_mean=float(busy.mean()),
            busy_p95=float(np.quantile(busy, 0.95)),
            busy_max=int(busy.max()),
            overflow_seconds=float((busy > pool_size).mean() * seconds),
        ),
        "server": Server(cpu_cores=0.3, max_connections=100, reserved_connections=3),
        "worker": Process(cpu_cores=0.2, loop_lag_seconds=durations_from([0.0005] * 100)),
        "generator": Process(cpu_cores=0.1),
        "samples": _samples(
            queue.done,
            moments=moments,
            busy=busy,
            waiting=waiting,
            pool_size=pool_size,
            begin=warm_up,
            end=end,
        ),
    }
    return Point.model_validate(parts | changes)


def _count(moments: np.ndarray[Any, Any], spans: Sequence[tuple[float, float]]) -> Any:
    begun = np.sort([begin for begin, _ in spans])
    ended = np.sort([end for _, end in spans])
    return np.searchsorted(begun, moments, "right") - np.searchsorted(ended, moments, "right")


def _samples(
    done: Sequence[Checkout],
    *,
    moments: Any,
    busy: Any,
    waiting: Any,
    pool_size: int,
    begin: float,
    end: float,
) -> tuple[Sample, ...]:
    by_second: dict[int, list[Checkout]] = defaultdict(list)
    for each in done:
        by_second[math.floor(each.ended - begin)].append(each)
    samples = []
    for second in range(int(end - begin)):
        at = begin + second
        within = (moments >= at) & (moments < at + 1)
        ended = by_second[second]
        waits = sorted(each.began - each.arrived for each in ended)
        samples.append(
            Sample(
                at_seconds=second,
                busy=float(busy[within].mean()),
                overflow=float(np.maximum(busy[within] - pool_size, 0).mean()),
                waiting=float(waiting[within].mean()),
                throughput_per_second=len(ended),
                wait_p99_seconds=waits[int(len(waits) * 0.99)] if waits else None,
            )
        )
    return tuple(samples)


def make_about(**changes: Any) -> About:
    return About(
        command=("worker", "lab", "sweep"),
        scenario="steady",
        seed=1,
        started_at=NOON,
        ended_at=NOON,
        versions={"worker": "0.1.0", "python": "3.11.7", "postgresql": "17.0"},
        machine=Machine(cpu="a simulated one", cores=2, memory_bytes=8 << 30, system="Linux"),
        objective=Objective(),
    ).model_copy(update=changes)


def make_result(points: Sequence[Point], *, kind: str = "sweep", **changes: Any) -> Result:
    about = changes.pop("about", make_about())
    parts = {"kind": kind, "about": about, "points": tuple(points), **changes}
    return Result.model_validate(parts)
