"""What `/metrics` shows of commands: how many came to what, and where their time went.

All of it is counted a group at a time, beside the two calls through which every group goes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from time import monotonic, time

from worker.core.messages import (
    DeadLetter,
    Delivery,
    Done,
    Job,
    Outcome,
    Refused,
    Retry,
    Settled,
    Unavailable,
    utc_now,
)
from worker.telemetry.command_instruments import (
    ACTIVE,
    AGE,
    ANSWERS,
    COMMANDS,
    CONFIRMS,
    CONSUMED,
    DUPLICATES,
    GROUP,
    LANE,
    POSTPONED,
    PROCESS,
    REASON,
    REDELIVERED,
    RETRIES,
    SIZE,
    SUSPECTS,
    TYPE,
)
from worker.telemetry.command_log import CommandLog
from worker.telemetry.histogram import Histogram, Sizes
from worker.telemetry.instruments import Instrument, Reading

Process = Callable[[Sequence[Job]], Awaitable[list[Outcome]]]
Publish = Callable[[Sequence[tuple[Job, Settled]]], Awaitable[None]]

MAX_LABELS = 64
"""Codes and reasons that are told apart; what custom handlers raise beyond that is `other`."""
UNKNOWN_TYPE = "unknown"
MAX_AGE_SECONDS = 365 * 86_400


class CommandMeter:
    """Counts what goes by; a delivery from `suspect_from` redeliveries on is a suspect."""

    def __init__(self, log: CommandLog, *, suspect_from: int) -> None:
        self._log = log
        self._suspect_from = suspect_from
        self.settled: Counter[tuple[str, str, str]] = Counter()
        """By type, outcome and code."""
        self.duplicates: Counter[str] = Counter()
        self.retries: Counter[tuple[str, str]] = Counter()
        self.postponed: Counter[str] = Counter()
        self.consumed = self.redelivered = self.suspects = 0
        self.answers: Counter[str] = Counter()
        self.active = 0
        self._durations = {it: Histogram() for it in (AGE, LANE, GROUP, CONFIRMS, PROCESS)}
        self._sizes = Sizes()
        self._labels: set[str] = set()

    def took(self, delivery: Delivery) -> None:
        """A delivery came."""
        self.consumed += 1
        if delivery.delivery_count:
            self.redelivered += 1
            self.suspects += delivery.delivery_count >= self._suspect_from

    def around_processing(self, process: Process) -> Process:
        """The same, measured."""

        async def measured(jobs: Sequence[Job]) -> list[Outcome]:
            begun = monotonic()
            self._waited(jobs[0])
            self.active += 1
            try:
                outcomes = await process(jobs)
            finally:
                self.active -= 1
            self._durations[GROUP].record(monotonic() - begun)
            self._sizes.record(len(jobs))
            self._count_unsettled(jobs, outcomes)
            return outcomes

        return measured

    def around_publishing(self, publish: Publish) -> Publish:
        """The same, measured."""

        async def measured(settled: Sequence[tuple[Job, Settled]]) -> None:
            begun = monotonic()
            await publish(settled)
            self._durations[CONFIRMS].record(monotonic() - begun)
            self.answers["event"] += len(settled)
            now = utc_now()
            for job, outcome in settled:
                self._count_settled(job, outcome, (now - job.since).total_seconds())

        return measured

    def _waited(self, first: Job) -> None:
        self._durations[LANE].record((utc_now() - first.since).total_seconds())
        timestamp = first.envelope.delivery.timestamp
        # One that lies ahead is of another clock, or counts milliseconds; 0 is none.
        if timestamp is not None and 0 <= (age := time() - timestamp) < MAX_AGE_SECONDS:
            self._durations[AGE].record(age)

    def _count_unsettled(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            match outcome:
                case Retry():
                    reason = self._bounded(_raised(outcome.reason))
                    self.retries[_type_of(job), reason] += 1
                    self._log.retried(job, outcome, (utc_now() - job.since).total_seconds())
                case Unavailable():
                    self.postponed[self._bounded(_raised(outcome.reason))] += 1

    def _count_settled(self, job: Job, outcome: Settled, seconds: float) -> None:
        match outcome:
            case Done():
                name, code = "done", ""
            case Refused():
                name, code = "refused", self._bounded(_code_of(outcome))
            case DeadLetter():
                name, code = "dead_letter", self._bounded(outcome.code)
                self.answers[name] += 1
        type_ = _type_of(job)
        self.settled[type_, name, code] += 1
        if outcome.answer.replayed:
            self.duplicates[type_] += 1
        self._durations[PROCESS].record(seconds)
        if code or self._log.tells_done:
            self._log.settled(job, outcome, name, code, seconds)

    def _bounded(self, label: str) -> str:
        if label not in self._labels:
            if len(self._labels) >= MAX_LABELS:
                return "other"
            self._labels.add(label)
        return label

    def totals(self) -> dict[str, int]:
        """How many commands came to what, for the log."""
        totals = Counter({"done": 0, "refused": 0, "dead_letter": 0})
        for (_, outcome, _), count in self.settled.items():
            totals[outcome] += count
        return totals | {
            "duplicates": self.duplicates.total(),
            "retries": self.retries.total(),
            "postponed": self.postponed.total(),
        }

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        yield (
            COMMANDS,
            [
                (dict(zip(COMMANDS.attributes, key, strict=True)), count)
                for key, count in self.settled.items()
            ],
        )
        yield DUPLICATES, [({TYPE: type_}, count) for type_, count in self.duplicates.items()]
        yield (
            RETRIES,
            [
                ({TYPE: type_, REASON: reason}, count)
                for (type_, reason), count in self.retries.items()
            ],
        )
        yield POSTPONED, [({REASON: reason}, count) for reason, count in self.postponed.items()]
        yield CONSUMED, [({}, self.consumed)]
        yield REDELIVERED, [({}, self.redelivered)]
        yield SUSPECTS, [({}, self.suspects)]
        yield ANSWERS, [({"kind": kind}, count) for kind, count in self.answers.items()]
        for instrument, histogram in self._durations.items():
            yield instrument, [({}, histogram)]
        yield SIZE, [({}, self._sizes)]
        yield ACTIVE, [({}, self.active)]


def _code_of(refused: Refused) -> str:
    """The code that the sender is told: a duplicate's outcome knows no more than that."""
    try:
        return str(json.loads(refused.answer.body)["data"]["code"])
    except (ValueError, LookupError, TypeError):  # stored by who knows which version
        return "unknown"


def _raised(reason: str) -> str:
    """The class of what was raised; what has none is one of a few sentences of ours."""
    return reason.partition(":")[0]


def _type_of(job: Job) -> str:
    return job.envelope.type or UNKNOWN_TYPE
