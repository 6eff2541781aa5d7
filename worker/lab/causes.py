"""Troubles that have a cause of their own, whatever the size of the pool.

Pure functions: each looks for one thing in the settings measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from worker.lab.checks import generator_headroom
from worker.lab.durations import Durations, recorded_in
from worker.lab.findings import Diagnosis
from worker.lab.repeats import Repeats, mean
from worker.lab.units import counted, show_number, show_seconds, show_share

LAG_BOUND_SECONDS = 0.03
LOOP_CPU_BOUND = 0.95
LOCK_SHARE = 0.2
LEAST_LOCKED_SESSIONS = 0.5
TAIL_FACTOR = 10
"""A hold this many times the median is a slow one."""
TAIL_MOST_HOLDS, TAIL_LEAST_TIME = 0.05, 0.3
COMMIT_SHARE = 0.5
CHURN_SHARE = 0.1


def leak(groups: Sequence[Repeats]) -> Diagnosis | None:
    """Connections that were still checked out when all work had ended."""
    found = [each for each in groups if _leaked(each)]
    if not found:
        return None
    most = max(found, key=_leaked)
    places = sorted({place for point in most.points for place in point.pool.still_out_at})
    taken = f", taken at {', '.join(places)}" if places else ""
    return Diagnosis(
        name="leak",
        words=f"{counted(_leaked(most), 'connection')} never came back, of the "
        f"{most.setting.connections} that the pool may open{taken}",
        mend="Give every session back on every path: `async with sessions.begin() as session`. "
        "A bigger pool only leaks for longer.",
        pool_sizes=sizes_of(found),
    )


def _leaked(group: Repeats) -> int:
    return max(point.pool.still_out for point in group.points)


def lock_contention(groups: Sequence[Repeats]) -> Diagnosis | None:
    """Sessions that wait for each other within the database."""
    found = [each for each in groups if is_locked(each)]
    if not found:
        return None
    worst = max(found, key=_locked)
    return Diagnosis(
        name="lock-contention",
        words=f"{show_number(_locked(worst))} of {show_number(worst.busy)} busy connections waited "
        f"for a lock on average, with a pool of {worst.setting.connections}",
        mend="Lock fewer rows and for less long: one statement instead of read and write, the lock "
        "as the last step before COMMIT. More connections only wait in PostgreSQL instead of here.",
        pool_sizes=sizes_of(found),
    )


def _locked(group: Repeats) -> float:
    return mean(point.server.lock_wait_sessions_mean for point in group.points)


def is_locked(group: Repeats) -> bool:
    """Whether a good part of the busy connections waits for locks."""
    return _locked(group) >= max(LEAST_LOCKED_SESSIONS, LOCK_SHARE * group.busy)


def busy_event_loop(groups: Sequence[Repeats]) -> Diagnosis | None:
    """The process of the pool is late for everything."""
    found = [each for each in groups if loop_is_busy(each)]
    if not found:
        return None
    worst = max(found, key=_lag)
    return Diagnosis(
        name="busy-event-loop",
        words=f"The event loop woke up {show_seconds(_lag(worst))} late (p99) and used "
        f"{show_share(_worker_cpu(worst))} of a core: connections are held and nobody serves them",
        mend="Take what blocks out of the loop (`asyncio.to_thread`), or run more processes with a "
        "smaller pool each. More connections make it worse.",
        pool_sizes=sizes_of(found),
    )


def _lag(group: Repeats) -> float:
    lags = [point.worker.loop_lag_seconds for point in group.points if point.worker]
    return max((lag.p99 for lag in lags if lag), default=0.0)


def _worker_cpu(group: Repeats) -> float:
    return mean(point.worker.cpu_cores for point in group.points if point.worker)


def loop_is_busy(group: Repeats) -> bool:
    """Whether the process of the pool is what everything waits for."""
    return _lag(group) >= LAG_BOUND_SECONDS or _worker_cpu(group) >= LOOP_CPU_BOUND


class Tail(NamedTuple):
    """The slow holds: how many of all, and of all time."""

    holds: float
    time: float


def tail_of(holds: Durations) -> Tail:
    """The share of holds that took ten times the median or longer, and their share of the time."""
    found = recorded_in(holds)
    if found is None or holds.count == 0:
        return Tail(0, 0)
    slow = found.seconds >= TAIL_FACTOR * holds.p50
    time = found.seconds * found.counts
    return Tail(
        holds=float(found.counts[slow].sum() / found.counts.sum()),
        time=float(time[slow].sum() / time.sum()),
    )


def slow_queries(groups: Sequence[Repeats]) -> Diagnosis | None:
    """A few holds take most of the time, so that they own the pool."""
    found = [each for each in groups if _has_tail(each)]
    if not found:
        return None
    worst = max(found, key=lambda each: tail_of(each.hold).time)
    holds = worst.hold
    tail = tail_of(holds)
    return Diagnosis(
        name="slow-queries",
        words=f"{show_share(tail.holds)} of the holds took {TAIL_FACTOR} times the median "
        f"({show_seconds(holds.p50)}) or longer, up to {show_seconds(holds.max)}, and "
        f"{show_share(tail.time)} of all time that connections were held",
        mend="Find them (`log_min_duration_statement`, pg_stat_statements) and make them quick, "
        "bound them by `statement_timeout`, or give them a pool of their own. A bigger pool only "
        "hides them.",
        pool_sizes=sizes_of(found),
    )


def _has_tail(group: Repeats) -> bool:
    if is_locked(group):
        return False
    tail = tail_of(group.hold)
    return 0 < tail.holds <= TAIL_MOST_HOLDS and tail.time >= TAIL_LEAST_TIME


def slow_commit(groups: Sequence[Repeats]) -> Diagnosis | None:
    """Connections are held mostly for COMMIT to reach the disk."""
    found = [each for each in groups if _commit_share(each) >= COMMIT_SHARE]
    if not found:
        return None
    worst = max(found, key=_commit_share)
    return Diagnosis(
        name="slow-commit",
        words=f"{show_share(_commit_share(worst))} of the time that a connection was held went "
        "into COMMIT",
        mend="Put more work into one transaction: WORKER_GROUP_SIZE shares one COMMIT among many "
        "commands. Or use a quicker disk for the write-ahead log.",
        pool_sizes=sizes_of(found),
    )


def _commit_share(group: Repeats) -> float:
    commits = [point.hold.commit_seconds for point in group.points]
    total = _spent(group.hold)
    return sum(_spent(commit) for commit in commits if commit) / total if total else 0.0


def _spent(durations: Durations) -> float:
    return durations.mean * durations.count


def connection_churn(groups: Sequence[Repeats]) -> Diagnosis | None:
    """Connections are opened all the time: what overflows is closed when it is given back."""
    found = [each for each in groups if churn_of(each) >= CHURN_SHARE]
    if not found:
        return None
    worst = max(found, key=churn_of)
    return Diagnosis(
        name="connection-churn",
        words=f"{show_share(churn_of(worst))} of the checkouts opened a connection, with a pool of "
        f"{worst.setting.pool_size}+{worst.setting.max_overflow}: what is beyond pool_size is "
        "closed as soon as it is given back",
        mend="Raise pool_size by what overflows all the time; max_overflow is for short spikes.",
        pool_sizes=sizes_of(found),
    )


def churn_of(group: Repeats) -> float:
    """Connections opened for each checkout."""
    checkouts = sum(point.hold.seconds.count for point in group.points)
    return sum(point.pool.connects for point in group.points) / checkouts if checkouts else 0.0


def overloaded_generator(groups: Sequence[Repeats]) -> Diagnosis | None:
    """What makes the load could not keep up with its own schedule."""
    found = [
        each
        for each in groups
        if not all(generator_headroom(point).passed for point in each.points)
    ]
    if not found:
        return None
    point = next(
        point for each in found for point in each.points if not generator_headroom(point).passed
    )
    return Diagnosis(
        name="overloaded-generator",
        words=generator_headroom(point).words,
        mend="Lower the rate, or give the generator a core of its own. These numbers show the "
        "generator, not the pool.",
        pool_sizes=sizes_of(found),
    )


def sizes_of(groups: Sequence[Repeats]) -> tuple[int, ...]:
    """The pool sizes of these settings."""
    return tuple(sorted({each.setting.pool_size for each in groups}))
