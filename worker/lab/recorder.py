"""What became of the work: counted and timed by its intended begin, within the measured window."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import monotonic_ns

from worker.database.errors import sqlstate
from worker.lab.durations import (
    Amount,
    Count,
    Durations,
    Model,
    durations_of,
    new_histogram,
    record,
)

UNFINISHED = "Unfinished"
"""The error of work that was still in hand when the lab gave up on it."""

SLOTS = 16
"""Requesters that arrivals of an open load are dealt to in turn, to compare their waits."""


@dataclass(frozen=True)
class MeasuredWindow:
    """The time that is measured, on the monotonic clock, which all processes share."""

    from_ns: int
    until_ns: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until_ns - self.from_ns) / 1e9

    def holds(self, time_ns: int) -> bool:
        """Whether a time lies within."""
        return self.from_ns <= time_ns < self.until_ns

    def cut(self, now_ns: int) -> MeasuredWindow:
        """The part of it that has passed."""
        return MeasuredWindow(self.from_ns, max(min(self.until_ns, now_ns), self.from_ns))


class WorkInterval(Model):
    """The ends of work within one interval."""

    throughput_per_second: Amount = 0
    errors: Count = 0
    latency_p99_seconds: Amount | None = None


class WorkReport(Model):
    """What became of the work that was intended within the window."""

    started: Count
    dropped: Count
    completed: Count
    failed: Count
    ended_in_window: Count
    """Pieces completed within the window, whenever they were intended: the throughput."""
    errors: dict[str, Count]
    latency_seconds: Durations
    mean_wait_by_slot: tuple[Amount, ...] = ()
    intervals: tuple[WorkInterval, ...] = ()


class WorkRecorder:
    """Is told of each piece of work; cheap enough to be told of all."""

    def __init__(self, window: MeasuredWindow, interval_seconds: float = 1.0) -> None:
        self.window = window
        self._interval_ns = round(interval_seconds * 1e9)
        self._started = self._dropped = self._completed = 0
        self._ended_in_window = 0
        self._errors: Counter[str] = Counter()
        self._latency = new_histogram()
        self._intervals: dict[int, tuple[list[int], list[float]]] = {}
        self._waits = [[0.0, 0.0] for _ in range(SLOTS)]  # sum, count
        self.completed_ever = 0
        self.failed_ever = 0

    def started(self, intended_ns: int) -> None:
        """A piece of work has begun."""
        self._started += self.window.holds(intended_ns)

    def dropped(self, intended_ns: int) -> None:
        """A piece of work will not be begun: too many are in hand."""
        self._dropped += self.window.holds(intended_ns)

    def waited(self, intended_ns: int, slot: int, seconds: float) -> None:
        """A requester waited so long for a connection."""
        if self.window.holds(intended_ns):
            waits = self._waits[slot % SLOTS]
            waits[0] += seconds
            waits[1] += 1

    def ended(self, intended_ns: int, error: BaseException | str | None = None) -> None:
        """A piece of work has come to its end, good or bad."""
        now = monotonic_ns()
        latency = (now - intended_ns) / 1e9
        if error is None:
            self.completed_ever += 1
        else:
            self.failed_ever += 1
        if self.window.holds(now):
            counts, latencies = self._interval(now)
            counts[error is not None] += 1
            latencies.append(latency)
            self._ended_in_window += error is None
        if not self.window.holds(intended_ns):
            return
        # Also of what failed: who waited in vain has waited.
        record(self._latency, latency)
        if error is None:
            self._completed += 1
        else:
            self._errors[error if isinstance(error, str) else name_of(error)] += 1

    def _interval(self, now_ns: int) -> tuple[list[int], list[float]]:
        number = (now_ns - self.window.from_ns) // self._interval_ns
        return self._intervals.setdefault(number, ([0, 0], []))

    def report(self, window: MeasuredWindow) -> WorkReport:
        """What was found; `window` is the part of the window that was really used."""
        last = (window.until_ns - window.from_ns) // self._interval_ns
        return WorkReport(
            started=self._started,
            dropped=self._dropped,
            completed=self._completed,
            failed=self._errors.total(),
            ended_in_window=self._ended_in_window,
            errors=dict(self._errors),
            latency_seconds=durations_of(self._latency),
            mean_wait_by_slot=tuple(total / count for total, count in self._waits if count),
            intervals=tuple(self._interval_report(number) for number in range(last)),
        )

    def _interval_report(self, number: int) -> WorkInterval:
        (completed, errors), latencies = self._intervals.get(number, ([0, 0], []))
        ordered = sorted(latencies)
        return WorkInterval(
            throughput_per_second=completed / (self._interval_ns / 1e9),
            errors=errors,
            latency_p99_seconds=ordered[int(len(ordered) * 0.99)] if ordered else None,
        )


def name_of(error: BaseException) -> str:
    """The SQLSTATE, or the exception's name where the server was not asked."""
    code = sqlstate(error)
    if code is not None:
        return code
    cause = getattr(error, "orig", None)
    return type(cause.__cause__ or cause if isinstance(cause, BaseException) else error).__name__


def jain_index(values: tuple[float, ...]) -> float | None:
    """Jain's fairness index: (Σx)² / (n·Σx²). Source: Jain, Chiu, Hawe, DEC-TR-301, 1984."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None
