"""The models beside the measurement: throughput over pool size, and the wait of each point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import optimize, stats

from worker.lab.findings import Interval, Prediction, ScalabilityFit
from worker.lab.measured import Point
from worker.lab.queueing import (
    Values,
    Waits,
    simulate_closed,
    simulate_open,
    values_of,
    wait_mmc,
)
from worker.lab.repeats import CONFIDENCE, Repeats
from worker.lab.units import show_number, show_share

LEAST_SIZES = 4
"""Pool sizes that a curve with three parameters needs at least."""
FIT_BOUND = 0.25
"""The curve speaks about the pool while no size is off by more than this share."""
WAIT_BOUND = 0.5
"""Share by which the p99 of the wait may lie outside of what the simulated windows gave."""
WAIT_FLOOR_SECONDS = 0.003
"""Or by this much: the event loop's own delays, which no queueing model knows."""
WINDOWS = 20
"""Simulated windows for each point."""
MOST_ARRIVALS = 200_000
"""Simulated arrivals for each point; with more in a window, fewer windows are simulated."""


def usl(size: float, single: float, contention: float, coherency: float) -> float:
    """Throughput of so many connections by the Universal Scalability Law.

    X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1)). Source: N. J. Gunther, "Guerrilla
    Capacity Planning", 2007, 4.3 and 6; with kappa = 0 it is Amdahl's law.
    """
    return single * size / (1 + contention * (size - 1) + coherency * size * (size - 1))


def fit_usl(full: Sequence[Repeats]) -> ScalabilityFit | None:
    """Fit the law to the settings whose pool was full; `None` with fewer than four pool sizes.

    A pool that the load did not fill shows the load, not the pool. Non-linear least squares
    (scipy `curve_fit`, trust region); intervals from the covariance, with Student's t.
    """
    sizes = np.array([each.setting.connections for each in full], dtype=float)
    measured = np.array([each.throughput for each in full])
    if len(set(sizes.tolist())) < LEAST_SIZES or (measured <= 0).any():
        return None
    start = [float(np.max(measured / sizes)), 0.1, 0.001]
    best, covariance = optimize.curve_fit(
        usl,
        sizes,
        measured,
        p0=start,
        bounds=([1e-9, 0, 0], [np.inf, 1, np.inf]),
        max_nfev=10_000,
    )
    single, contention, coherency = (float(value) for value in best)
    freedom = max(len(sizes) - len(best), 1)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(np.diag(covariance))
    predicted = np.array([usl(size, *best) for size in sizes])
    off = np.abs(measured - predicted) / np.maximum(measured, predicted)
    peak = _peak(contention, coherency, largest=float(sizes.max()))
    agrees = bool(off.max() <= FIT_BOUND)
    return ScalabilityFit(
        contention=contention,
        coherency=coherency,
        single_throughput_per_second=single,
        contention_interval=_around(contention, reach[1]),
        coherency_interval=_around(coherency, reach[2]),
        peak_size=peak,
        peak_throughput_per_second=None if peak is None else usl(peak, *best),
        r_squared=_r_squared(measured, predicted),
        agrees=agrees,
        words=_fit_words(contention, coherency, peak, off, sizes),
    )


def _peak(contention: float, coherency: float, *, largest: float) -> float | None:
    """Where the derivative is 0; `None` far beyond what was measured, where it is a guess."""
    if coherency <= 0:
        return None
    peak = math.sqrt((1 - contention) / coherency)
    return max(peak, 1.0) if peak <= 4 * largest else None


def _around(value: float, reach: float) -> Interval:
    if not math.isfinite(reach):  # a parameter at its bound: the data say nothing more of it
        return Interval(low=0, high=max(1.0, value))
    return Interval(low=max(value - reach, 0.0), high=value + reach)


def _r_squared(measured: Values, predicted: Values) -> float:
    total = float(((measured - measured.mean()) ** 2).sum())
    return 1 - float(((measured - predicted) ** 2).sum()) / total if total else 1.0


def _fit_words(
    contention: float, coherency: float, peak: float | None, off: Values, sizes: Values
) -> str:
    worst = int(off.argmax())
    found = f"contention {show_share(contention)}, coherency {show_share(coherency)}, " + (
        f"peak at {show_number(peak)} connections" if peak else "no peak in reach"
    )
    quality = f"the curve is off by {show_share(float(off[worst]))} at {sizes[worst]:.0f} at worst"
    return f"{found}; {quality} (bound {show_share(FIT_BOUND)})"


def predict(point: Point, *, seed: int = 0) -> tuple[Prediction, ...]:
    """The wait that the models expect of this point, beside the measured one.

    Empty where they do not apply: work was dropped or timed out, so what arrived is not what the
    models are told, or nothing was held at all; or lanes, no more of them than connections, let
    work wait in memory, so that none arrives at the pool by chance.
    """
    lanes = point.setting.lanes
    if lanes is not None and lanes <= point.setting.connections:
        return ()
    lost = point.load.dropped or point.wait.timeouts
    if lost or point.hold.seconds.count == 0 or point.load.arrivals == "burst":
        return ()
    simulated = _simulated(point, np.random.default_rng(seed))
    predictions = [_compare(point, "G/G/c", *simulated)]
    rate = point.hold.seconds.count / point.measured_seconds
    exact = wait_mmc(point.setting.connections, rate, point.hold.seconds.mean)
    if point.setting.load == "open" and exact is not None:
        predictions.append(_compare(point, "M/M/c", exact, Interval(low=exact.p99, high=exact.p99)))
    return tuple(predictions)


def _simulated(point: Point, random: np.random.Generator) -> tuple[Waits, Interval]:
    """Mean and p99 of the wait over simulated windows, and the range of their p99."""
    servers, holds = point.setting.connections, values_of(point.hold.seconds)
    rate = point.hold.seconds.count / point.measured_seconds
    arriving = rate * (point.warm_up_seconds + point.measured_seconds)
    windows = max(3, min(WINDOWS, int(MOST_ARRIVALS / max(arriving, 1))))
    means, highs = [], []
    for _ in range(windows):
        if point.setting.load == "closed":
            waits = simulate_closed(
                servers,
                point.setting.clients or 1,
                holds,
                count=point.hold.seconds.count,
                random=random,
            )
        else:
            waits = simulate_open(
                servers,
                rate,
                holds,
                seconds=point.measured_seconds,
                warm_up_seconds=point.warm_up_seconds,
                arrivals="constant" if point.load.arrivals == "constant" else "poisson",
                random=random,
            )
        means.append(float(waits.mean()))
        highs.append(float(np.quantile(waits, 0.99)))
    middle = Waits(mean=float(np.mean(means)), p99=float(np.median(highs)))
    return middle, Interval(low=min(highs), high=max(highs))


def _compare(
    point: Point, model: Literal["M/M/c", "G/G/c"], waits: Waits, range_: Interval
) -> Prediction:
    measured, predicted = point.wait.seconds.p99, waits.p99
    lag = point.worker.loop_lag_seconds if point.worker else None
    slack = WAIT_FLOOR_SECONDS + (lag.p99 if lag else 0.0)
    low = range_.low * (1 - WAIT_BOUND) - slack
    high = range_.high * (1 + WAIT_BOUND) + slack
    rate = point.hold.seconds.count / point.measured_seconds
    largest = max(measured, predicted)
    return Prediction(
        model=model,
        servers=point.setting.connections,
        utilisation=rate * point.hold.seconds.mean / point.setting.connections,
        mean_predicted_seconds=waits.mean,
        mean_measured_seconds=point.wait.seconds.mean,
        p99_predicted_seconds=predicted,
        p99_measured_seconds=measured,
        p99_low_seconds=max(low, 0.0),
        p99_high_seconds=high,
        residual=(measured - predicted) / largest if largest else 0.0,
        agrees=low <= measured <= high,
    )
