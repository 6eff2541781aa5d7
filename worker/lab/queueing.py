"""How long a checkout should wait, by queueing theory.

A pool is a queue with c servers, its connections; the time that one is held is the service time.
Two models: M/M/c has a formula (Erlang C) and assumes that holds are exponentially distributed;
G/G/c takes the holds as they were measured, and has to be simulated.
"""

from __future__ import annotations

import heapq
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from worker.lab.durations import Durations, recorded_in

Arrivals = Literal["poisson", "constant"]
Values = NDArray[np.float64]


class Waits(NamedTuple):
    """What a model says about the wait, in seconds."""

    mean: float
    p99: float


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival has to wait in an M/M/c queue; 1 where it is overloaded.

    `offered` is arrival rate x mean service time, in Erlang. Source: L. Kleinrock, "Queueing
    Systems" I, 3.5; Erlang B is written as a ratio of Poisson probabilities, which scipy has.
    """
    if offered >= servers:
        return 1.0
    blocked = float(stats.poisson.pmf(servers, offered) / stats.poisson.cdf(servers, offered))
    load = offered / servers
    return blocked / (1 - load * (1 - blocked))


def wait_mmc(servers: int, rate: float, service_seconds: float) -> Waits | None:
    """Mean and p99 of the wait in an M/M/c queue; `None` where it has no steady state.

    Source: Kleinrock, as above: P(W > t) = C exp(-(c mu - lambda) t).
    """
    offered = rate * service_seconds
    if offered >= servers:
        return None
    waits = erlang_c(servers, offered)
    drain = servers / service_seconds - rate
    p99 = float(np.log(waits / 0.01)) / drain if waits > 0.01 else 0.0
    return Waits(mean=waits / drain, p99=p99)


def simulate_open(
    servers: int,
    rate: float,
    holds: Values,
    *,
    seconds: float,
    warm_up_seconds: float,
    arrivals: Arrivals,
    random: np.random.Generator,
) -> Values:
    """Waits of a first-come-first-served G/G/c queue over a window like the measured one.

    A finite window, not the steady state: the same start, warm-up and length as the measurement, so
    that the two may be compared even close to saturation. The recursion is that of J. Kiefer and
    J. Wolfowitz, "On the theory of queues with many servers", 1955: a heap of the times at which
    the servers become free.
    """
    count = max(int(rate * (warm_up_seconds + seconds)), 1)
    if arrivals == "poisson":
        arrived = np.cumsum(random.exponential(1 / rate, count))
    else:
        arrived = np.arange(1, count + 1) / rate
    service = random.choice(holds, count)
    free = [0.0] * servers
    waits = np.empty(count)
    for number, (at, held) in enumerate(zip(arrived.tolist(), service.tolist(), strict=True)):
        begins = max(at, free[0])
        waits[number] = begins - at
        heapq.heapreplace(free, begins + held)
    measured = waits[arrived >= warm_up_seconds]
    return measured if measured.size else waits


def simulate_closed(
    servers: int, clients: int, holds: Values, *, count: int, random: np.random.Generator
) -> Values:
    """Waits of so many checkouts by clients that ask again as soon as they are done."""
    ready = [0.0] * clients
    free = [0.0] * servers
    service = random.choice(holds, count + clients)
    waits = np.empty(count + clients)
    for number, held in enumerate(service.tolist()):
        at = ready[0]
        begins = max(at, free[0])
        waits[number] = begins - at
        heapq.heapreplace(free, begins + held)
        heapq.heapreplace(ready, begins + held)
    return waits[clients:]  # all begin at once, which no later round does


def values_of(durations: Durations, *, most: int = 20_000) -> Values:
    """The recorded values; of very many an even choice, a quantile each."""
    found = recorded_in(durations)
    if found is None or durations.count == 0:
        return np.array([durations.mean or 1e-6])
    repeated = np.repeat(found.seconds, found.counts)
    if repeated.size <= most:
        return repeated
    chosen: Values = np.quantile(repeated, (np.arange(most) + 0.5) / most)
    return chosen
