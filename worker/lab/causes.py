"""Troubles that have a cause of their own, whatever the size of the pool.

Pure: each looks for one thing in the settings measured, and speaks of that in which it shows most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from worker.lab.checks import generator_headroom, was_kept_waiting
from worker.lab.durations import Durations, recorded_in
from worker.lab.findings import Diagnosis, DiagnosisName
from worker.lab.repeats import Repeats, mean
from worker.lab.units import counted, show_number, show_seconds, show_share

LAG_BOUND_SECONDS = 0.03
LOOP_CPU_BOUND = 0.95
LOOP_CPU_OF_ITS_OWN = 0.5
"""From so much of a core on, a late loop is late by itself, whatever others do."""
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
    mend: str

    def __call__(self, groups: Sequence[Repeats]) -> Diagnosis | None:
        """What is found in these settings; `None` where it shows in none."""
        found = [each for each in groups if self.shows(each)]
        if not found:
            return None
        words = self.words(max(found, key=self.extent))
        return Diagnosis(name=self.name, words=words, mend=self.mend, pool_sizes=sizes_of(found))


def sizes_of(groups: Sequence[Repeats]) -> tuple[int, ...]:
    """The pool sizes of these settings."""
    return tuple(sorted({each.setting.pool_size for each in groups}))


def leaked(group: Repeats) -> int:
    """Connections that were still checked out when all work had ended."""
    return max(point.pool.still_out for point in group.points)


def _leak_words(group: Repeats) -> str:
    places = sorted({place for point in group.points for place in point.pool.still_out_at})
    taken = f", taken at {', '.join(places)}" if places else ""
    return (
        f"{counted(leaked(group), 'connection')} never came back, of the "
        f"{group.setting.connections} that the pool may open{taken}"
    )


def _locked(group: Repeats) -> float:
    return mean(point.server.lock_wait_sessions_mean for point in group.points)


def is_locked(group: Repeats) -> bool:
    """Whether a good part of the busy connections waits for each other's locks."""
    return _locked(group) >= max(LEAST_LOCKED_SESSIONS, LOCK_SHARE * group.busy)


def _worker_cpu(group: Repeats) -> float:
    return mean(point.worker.cpu_cores for point in group.points if point.worker)


def _is_taken_by_others(group: Repeats) -> bool:
    return any(point.host and point.host.is_taken_by_others for point in group.points)


def loop_is_busy(group: Repeats) -> bool:
    """Whether the process of the pool is what everything waits for."""
    cpu, late = _worker_cpu(group), group.loop_lag >= LAG_BOUND_SECONDS
    by_itself = cpu >= LOOP_CPU_OF_ITS_OWN or not _is_taken_by_others(group)
    return (late and by_itself) or cpu >= LOOP_CPU_BOUND


def machine_is_busy(group: Repeats) -> bool:
    """Whether everything of the lab's is late since others have the cores."""
    if not _is_taken_by_others(group) or loop_is_busy(group):
        return False
    return any(map(was_kept_waiting, group.points)) or group.loop_lag >= LAG_BOUND_SECONDS


def _others(group: Repeats) -> float:
    return max((point.host.others_cpu_cores for point in group.points if point.host), default=0)


def generator_faults(group: Repeats) -> list[str]:
    """How the generator could not keep up with its own schedule, where nobody else was to blame."""
    points = [point for point in group.points if not was_kept_waiting(point)]
    return [check.words for check in map(generator_headroom, points) if not check.passed]


class Tail(NamedTuple):
    """The slow holds: how many of all, and of all time."""

    holds: float
    time: float


def tail_of(holds: Durations) -> Tail:
    """The share of holds that took ten times the median or longer, and their share of the time."""
    found = recorded_in(holds)
    if found is None or holds.count == 0:
        return Tail(0, 0)
    slow, time = found.seconds >= TAIL_FACTOR * holds.p50, found.seconds * found.counts
    return Tail(
        holds=float(found.counts[slow].sum() / found.counts.sum()),
        time=float(time[slow].sum() / time.sum()),
    )


def has_tail(group: Repeats) -> bool:
    """Whether a few holds take most of the time, so that they own the pool."""
    tail = tail_of(group.hold)
    few = 0 < tail.holds <= TAIL_MOST_HOLDS
    return few and tail.time >= TAIL_LEAST_TIME and not is_locked(group)


def _tail_words(group: Repeats) -> str:
    holds, tail = group.hold, tail_of(group.hold)
    return (
        f"{show_share(tail.holds)} of the holds took {TAIL_FACTOR} times the median "
        f"({show_seconds(holds.p50)}) or longer, up to {show_seconds(holds.max)}, and "
        f"{show_share(tail.time)} of all time that connections were held"
    )


def _commit_share(group: Repeats) -> float:
    commits = [point.hold.commit_seconds for point in group.points]
    total = group.hold.total
    return sum(commit.total for commit in commits if commit) / total if total else 0.0


def churn_of(group: Repeats) -> float:
    """Connections opened for each checkout: what overflows is closed when it is given back."""
    checkouts = sum(point.hold.seconds.count for point in group.points)
    return sum(point.pool.connects for point in group.points) / checkouts if checkouts else 0.0


CAUSES = (
    Cause(
        name="busy-machine",
        shows=machine_is_busy,
        extent=_others,
        words=lambda group: (
            f"Other programs used {show_number(_others(group))} of the machine's cores and left "
            f"none free: the event loop woke up {show_seconds(group.loop_lag)} late (p99), and "
            "what is late is not the pool's fault"
        ),
        mend="Stop what else runs on this machine, or measure from another one.",
    ),
    Cause(
        name="overloaded-generator",
        shows=lambda group: bool(generator_faults(group)),
        extent=lambda _: 0,  # one is as good as another: the first
        words=lambda group: generator_faults(group)[0],
        mend="Lower the rate, or give the generator a core of its own. These numbers show the "
        "generator, not the pool.",
    ),
    Cause(
        name="leak",
        shows=lambda group: leaked(group) > 0,
        extent=leaked,
        words=_leak_words,
        mend="Give every session back on every path: `async with sessions.begin() as session`. "
        "A bigger pool only leaks for longer.",
    ),
    Cause(
        name="lock-contention",
        shows=is_locked,
        extent=_locked,
        words=lambda group: (
            f"{show_number(_locked(group))} of {show_number(group.busy)} busy connections waited "
            f"for a lock on average, with a pool of {group.setting.connections}"
        ),
        mend="Lock fewer rows and for less long: one statement instead of read and write, the lock "
        "as the last step before COMMIT. More connections only wait in PostgreSQL instead of here.",
    ),
    Cause(
        name="busy-event-loop",
        shows=loop_is_busy,
        extent=lambda group: group.loop_lag,
        words=lambda group: (
            f"The event loop woke up {show_seconds(group.loop_lag)} late (p99) and used "
            f"{show_share(_worker_cpu(group))} of a core: connections are held and nobody serves "
            "them"
        ),
        mend="Take what blocks out of the loop (`asyncio.to_thread`), or run more processes with "
        "a smaller pool each. More connections make it worse.",
    ),
    Cause(
        name="slow-queries",
        shows=has_tail,
        extent=lambda group: tail_of(group.hold).time,
        words=_tail_words,
        mend="Find them (`log_min_duration_statement`, pg_stat_statements) and make them quick, "
        "bound them by `statement_timeout`, or give them a pool of their own. A bigger pool only "
        "hides them.",
    ),
    Cause(
        name="slow-commit",
        shows=lambda group: _commit_share(group) >= COMMIT_SHARE,
        extent=_commit_share,
        words=lambda group: (
            f"{show_share(_commit_share(group))} of the time that a connection was held went into "
            "COMMIT"
        ),
        mend="Put more work into one transaction: WORKER_GROUP_SIZE shares one COMMIT among many "
        "commands. Or use a quicker disk for the write-ahead log.",
    ),
    Cause(
        name="connection-churn",
        shows=lambda group: churn_of(group) >= CHURN_SHARE,
        extent=churn_of,
        words=lambda group: (
            f"{show_share(churn_of(group))} of the checkouts opened a connection, with a pool of "
            f"{group.pool}: what is beyond pool_size is closed as soon as it is given back"
        ),
        mend="Raise pool_size by what overflows all the time; max_overflow is for short spikes.",
    ),
)
