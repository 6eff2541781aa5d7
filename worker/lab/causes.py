"""Troubles that have a cause of their own, whatever the size of the pool.

Pure functions: each looks for one thing in the settings measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from worker.lab.checks import generator_headroom, was_kept_waiting
from worker.lab.durations import Durations, recorded_in
from worker.lab.findings import Check, Diagnosis, DiagnosisName
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


@dataclass(frozen=True)
class Cause:
    """A trouble: in which settings it shows, in which the most, and what is said of that one."""

    name: DiagnosisName
    shows: Callable[[Repeats], bool]
    extent: Callable[[Repeats], float]
    words: Callable[[Repeats], str]
    """About the setting in which it shows the most."""
    mend: str

    def __call__(self, groups: Sequence[Repeats]) -> Diagnosis | None:
        """What is found in these settings; `None` where it shows in none."""
        found = [each for each in groups if self.shows(each)]
        if not found:
            return None
        worst = max(found, key=self.extent)
        return Diagnosis(
            name=self.name, words=self.words(worst), mend=self.mend, pool_sizes=sizes_of(found)
        )


# Connections that were still checked out when all work had ended.


def _leaked(group: Repeats) -> int:
    return max(point.pool.still_out for point in group.points)


def _leak_words(group: Repeats) -> str:
    places = sorted({place for point in group.points for place in point.pool.still_out_at})
    taken = f", taken at {', '.join(places)}" if places else ""
    return (
        f"{counted(_leaked(group), 'connection')} never came back, of the "
        f"{group.setting.connections} that the pool may open{taken}"
    )


leak = Cause(
    name="leak",
    shows=lambda group: _leaked(group) > 0,
    extent=_leaked,
    words=_leak_words,
    mend="Give every session back on every path: `async with sessions.begin() as session`. "
    "A bigger pool only leaks for longer.",
)


# Sessions that wait for each other within the database.


def _locked(group: Repeats) -> float:
    return mean(point.server.lock_wait_sessions_mean for point in group.points)


def is_locked(group: Repeats) -> bool:
    """Whether a good part of the busy connections waits for locks."""
    return _locked(group) >= max(LEAST_LOCKED_SESSIONS, LOCK_SHARE * group.busy)


lock_contention = Cause(
    name="lock-contention",
    shows=is_locked,
    extent=_locked,
    words=lambda group: (
        f"{show_number(_locked(group))} of {show_number(group.busy)} busy "
        "connections waited for a lock on average, with a pool of "
        f"{group.setting.connections}"
    ),
    mend="Lock fewer rows and for less long: one statement instead of read and write, the lock "
    "as the last step before COMMIT. More connections only wait in PostgreSQL instead of here.",
)


# The process of the pool is late for everything.


def _worker_cpu(group: Repeats) -> float:
    return mean(point.worker.cpu_cores for point in group.points if point.worker)


def loop_is_busy(group: Repeats) -> bool:
    """Whether the process of the pool is what everything waits for."""
    late = group.loop_lag >= LAG_BOUND_SECONDS and not _is_taken_by_others(group)
    return late or _worker_cpu(group) >= LOOP_CPU_BOUND


def _is_taken_by_others(group: Repeats) -> bool:
    return any(point.host and point.host.is_taken_by_others for point in group.points)


busy_event_loop = Cause(
    name="busy-event-loop",
    shows=loop_is_busy,
    extent=lambda group: group.loop_lag,
    words=lambda group: (
        f"The event loop woke up {show_seconds(group.loop_lag)} late (p99) and used "
        f"{show_share(_worker_cpu(group))} of a core: connections are held and nobody serves them"
    ),
    mend="Take what blocks out of the loop (`asyncio.to_thread`), or run more processes with a "
    "smaller pool each. More connections make it worse.",
)


# A few holds take most of the time, so that they own the pool.


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


def _has_tail(group: Repeats) -> bool:
    if is_locked(group):
        return False
    tail = tail_of(group.hold)
    return 0 < tail.holds <= TAIL_MOST_HOLDS and tail.time >= TAIL_LEAST_TIME


def _tail_words(group: Repeats) -> str:
    holds = group.hold
    tail = tail_of(holds)
    return (
        f"{show_share(tail.holds)} of the holds took {TAIL_FACTOR} times the median "
        f"({show_seconds(holds.p50)}) or longer, up to {show_seconds(holds.max)}, and "
        f"{show_share(tail.time)} of all time that connections were held"
    )


slow_queries = Cause(
    name="slow-queries",
    shows=_has_tail,
    extent=lambda group: tail_of(group.hold).time,
    words=_tail_words,
    mend="Find them (`log_min_duration_statement`, pg_stat_statements) and make them quick, "
    "bound them by `statement_timeout`, or give them a pool of their own. A bigger pool only "
    "hides them.",
)


# Connections are held mostly for COMMIT to reach the disk.


def _commit_share(group: Repeats) -> float:
    commits = [point.hold.commit_seconds for point in group.points]
    total = _spent(group.hold)
    return sum(_spent(commit) for commit in commits if commit) / total if total else 0.0


def _spent(durations: Durations) -> float:
    return durations.mean * durations.count


slow_commit = Cause(
    name="slow-commit",
    shows=lambda group: _commit_share(group) >= COMMIT_SHARE,
    extent=_commit_share,
    words=lambda group: (
        f"{show_share(_commit_share(group))} of the time that a connection was "
        "held went into COMMIT"
    ),
    mend="Put more work into one transaction: WORKER_GROUP_SIZE shares one COMMIT among many "
    "commands. Or use a quicker disk for the write-ahead log.",
)


# Connections are opened all the time: what overflows is closed when it is given back.


def churn_of(group: Repeats) -> float:
    """Connections opened for each checkout."""
    checkouts = sum(point.hold.seconds.count for point in group.points)
    return sum(point.pool.connects for point in group.points) / checkouts if checkouts else 0.0


connection_churn = Cause(
    name="connection-churn",
    shows=lambda group: churn_of(group) >= CHURN_SHARE,
    extent=churn_of,
    words=lambda group: (
        f"{show_share(churn_of(group))} of the checkouts opened a connection, "
        f"with a pool of {group.setting.pool_size}+{group.setting.max_overflow}: what is beyond "
        "pool_size is closed as soon as it is given back"
    ),
    mend="Raise pool_size by what overflows all the time; max_overflow is for short spikes.",
)


# What makes the load could not keep up with its own schedule.


def _headroom_lacking(group: Repeats) -> list[Check]:
    checks = [(point, generator_headroom(point)) for point in group.points]
    return [check for point, check in checks if not check.passed and not was_kept_waiting(point)]


overloaded_generator = Cause(
    name="overloaded-generator",
    shows=lambda group: bool(_headroom_lacking(group)),
    extent=lambda _: 0,  # one is as good as another: the first
    words=lambda group: _headroom_lacking(group)[0].words,
    mend="Lower the rate, or give the generator a core of its own. These numbers show the "
    "generator, not the pool.",
)


# Everything of the lab's is late, since others have the cores.


def _is_kept_waiting(group: Repeats) -> bool:
    if not _is_taken_by_others(group) or loop_is_busy(group):
        return False
    late = any(was_kept_waiting(point) for point in group.points)
    return late or group.loop_lag >= LAG_BOUND_SECONDS


def _others(group: Repeats) -> float:
    return max((point.host.others_cpu_cores for point in group.points if point.host), default=0)


busy_machine = Cause(
    name="busy-machine",
    shows=_is_kept_waiting,
    extent=_others,
    words=lambda group: (
        f"Other programs used {show_number(_others(group))} of the machine's cores and left none "
        f"free: the event loop woke up {show_seconds(group.loop_lag)} late (p99), and what is "
        "late is not the pool's fault"
    ),
    mend="Stop what else runs on this machine, or measure from another one.",
)


def sizes_of(groups: Sequence[Repeats]) -> tuple[int, ...]:
    """The pool sizes of these settings."""
    return tuple(sorted({each.setting.pool_size for each in groups}))
