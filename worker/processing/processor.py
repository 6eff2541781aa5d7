"""A group of commands in, one transaction, an outcome for each.

A group can never change what a command does: where anything in it fails, all of it is rolled back
and its halves run on their own, down to single commands. So only a command that fails alone is at
fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.codec.codec import Codec
from worker.core.backoff import Backoff
from worker.core.messages import Blocked, Command, Disallowed, Job, Outcome, Retry, Unavailable
from worker.core.registry import Registry
from worker.core.tasks import is_cancelled
from worker.database.engine import Sessions
from worker.database.errors import sqlstate
from worker.database.lock_timeouts import LOCK_TIMEOUT, end_frozen, wait_briefly
from worker.processing.crud import create_row
from worker.processing.custom_handler import HandlerFault
from worker.processing.failures import SUSPECT_LOSSES, Failures
from worker.processing.fault_kinds import FaultKind, classify, is_of_connecting, is_proven
from worker.processing.outcomes import Outcomes
from worker.processing.single_statement import NeedsTransaction, SingleStatementCreate, is_plain
from worker.processing.transaction import Transaction, TransactionLimits

IsUp = Callable[[BaseException], Awaitable[bool]]
"""Asks the database, after this fault, whether it is up."""


@dataclass(slots=True)
class _Course:
    """What a group has met with so far."""

    held: set[str] = field(default_factory=set)
    """Keys that wait for a retry; no later command with such a key may run."""
    met_a_lock: bool = False
    """Whether one of the group waited for somebody's lock in vain. To wait as long in each of the
    halves would hold up all the others, and only say again what is known."""

    def note(self, job: Job, outcome: Outcome) -> None:
        """Let nothing with the job's key overtake it while it waits."""
        if isinstance(outcome, Retry) and job.key is not None:
            self.held.add(job.key)


class Processor:
    """Carries commands out. Safe to call from several lanes at once.

    `max_attempts` bounds the attempts at a command whose handler fails, `max_deliveries` those at
    one that, run alone, took the process down each time; `budget_seconds` is the age at which a
    transaction takes no further command. A custom handler has `handler_timeout_seconds`; for
    `contention_seconds` a command is tried again uncounted while others are in its way. `is_up`
    asks the database. A session of another worker that holds a lock and has been frozen for
    `frozen_seconds` is ended. `autocommit` is an engine for a create alone in its group; with none,
    it has a transaction like all others.
    """

    def __init__(
        self,
        sessions: Sessions,
        registry: Registry,
        codec: Codec,
        *,
        max_attempts: int,
        backoff: Backoff,
        max_deliveries: int,
        budget_seconds: float,
        frozen_seconds: float = 30,
        is_up: IsUp,
        handler_timeout_seconds: float = 10,
        contention_seconds: float = 300,
        autocommit: AsyncEngine | None = None,
    ) -> None:
        self._sessions = sessions
        self._autocommit = autocommit
        self._registry = registry
        self._outcomes = Outcomes(registry, codec)
        self._failures = Failures(
            sessions,
            registry,
            self._outcomes,
            max_attempts=max_attempts,
            backoff=backoff,
            contention_seconds=contention_seconds,
        )
        self._is_up = is_up
        self._max_deliveries = max_deliveries
        self._limits = TransactionLimits(budget_seconds, handler_timeout_seconds)
        self._frozen_seconds = frozen_seconds

    async def process(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcome of each job, in order. Never raises but when cancelled."""
        # What is barred never comes near the ledger: it could take another command's id, or be
        # told the answer to it.
        allowed = [job for job in jobs if not isinstance(job.item, Disallowed)]
        outcomes = iter(await self._process(allowed) if allowed else ())
        return [
            self._outcomes.barred(job.item) if isinstance(job.item, Disallowed) else next(outcomes)
            for job in jobs
        ]

    async def _process(self, jobs: Sequence[Job]) -> list[Outcome]:
        if len(jobs) == 1 and jobs[0].envelope.delivery.delivery_count >= self._max_deliveries:
            deliveries = jobs[0].envelope.delivery.delivery_count
            outcome = await self._failures.give_up(jobs[0], deliveries)
            if not isinstance(outcome, Retry):
                return [outcome]
            # It is in the ledger: it was done, but its worker died before it could say so.
        return await self._split(jobs, _Course())

    async def _split(self, jobs: Sequence[Job], course: _Course) -> list[Outcome]:
        """Outcomes of all the jobs: in one transaction if that goes well, else in several."""
        outcomes: dict[int, Outcome] = {}
        held = course.held
        while ready := _distinct(
            [job for job in jobs if id(job) not in outcomes and job.key not in held]
        ):
            try:
                # Alone, a command waits as long as the settings say, once; then its lane goes on.
                waited = len(ready) == 1 and ready[0].waits
                briefly = bool(waited) or (course.met_a_lock and len(ready) > 1)
                ran = await self._transact(ready, briefly=briefly)
            except BaseException as fault:
                if is_cancelled():  # else it is what a command's handler has raised
                    raise
                ran = await self._recover(ready, fault, course)
            # The first jobs at least: a transaction may run out of time.
            for job, outcome in zip(ready, ran, strict=False):
                outcomes[id(job)] = outcome
                course.note(job, outcome)
            if any(isinstance(outcome, Unavailable) for outcome in ran):
                break
        found: list[Outcome] = []
        for job in jobs:
            if id(job) in outcomes:
                found.append(outcomes[id(job)])
            elif job.key in held:
                found.append(Blocked())
            else:
                break
        return _nothing_after_a_loss(found, len(jobs))

    async def _transact(self, jobs: Sequence[Job], *, briefly: bool) -> list[Outcome]:
        if self._autocommit is not None and len(jobs) == 1 and self._seems_new(jobs[0]):
            # Where it is not, or more than it seems, nothing was written, and it runs again below.
            with suppress(IntegrityError, NeedsTransaction):
                async with self._autocommit.connect() as connection:
                    lone = SingleStatementCreate(connection, self._registry, self._outcomes)
                    return [await lone.run(jobs[0])]
        async with self._sessions.begin() as session:
            if briefly:
                await wait_briefly(session)
            transaction = Transaction(session, self._registry, self._outcomes, self._limits)
            return await transaction.run(jobs)

    def _seems_new(self, job: Job) -> bool:
        """Whether it is a create that one statement can carry out, tried for the first time."""
        tried = job.envelope.delivery.delivery_count or job.failures or job.losses or job.waits
        if tried or job.envelope.id is None or not isinstance(job.item, Command):
            return False
        entity = self._registry[job.item.entity]
        return entity.verbs[job.item.verb].handle is create_row and is_plain(entity)

    async def _recover(
        self, jobs: Sequence[Job], fault: BaseException, course: _Course
    ) -> list[Outcome]:
        """Outcomes of the first jobs at least, whose transaction has failed and left nothing."""
        kind = classify(fault)
        down = kind is FaultKind.OUTAGE and await self._is_outage(fault)
        suspect = len(jobs) > 1 and any(job.losses >= SUSPECT_LOSSES for job in jobs)
        if down and not suspect:
            return await self._failures.lost(jobs, fault)
        if sqlstate(fault) == LOCK_TIMEOUT:
            course.met_a_lock = True
            await end_frozen(self._sessions, after_seconds=self._frozen_seconds)
        if len(jobs) == 1:
            return [await self._failures.outcome(jobs[0], fault, kind)]
        outcomes: list[Outcome] = []
        for part in _parts(jobs, fault):
            if not down and is_proven(fault) and part[0] is jobs[fault.position]:
                ran = [await self._failures.outcome(part[0], fault, kind)]
                course.note(part[0], ran[0])
            else:
                ran = await self._split(part, course)
            outcomes += ran
            if any(isinstance(outcome, Unavailable) for outcome in ran):
                break
        return outcomes

    async def _is_outage(self, fault: BaseException) -> bool:
        """Whether there is one, by what the database says when it is asked."""
        return is_of_connecting(fault) or not await self._is_up(fault)


def _parts(jobs: Sequence[Job], fault: BaseException) -> list[Sequence[Job]]:
    """What is known of the culprit: it is one of them, or the one whose handler failed."""
    if isinstance(fault, HandlerFault):
        at = fault.position
        return [part for part in (jobs[:at], jobs[at : at + 1], jobs[at + 1 :]) if part]
    middle = len(jobs) // 2
    return [jobs[:middle], jobs[middle:]]


def _distinct(jobs: Sequence[Job]) -> Sequence[Job]:
    """The jobs up to the first whose command id stands earlier among them.

    A duplicate must find the first one in the ledger, so it comes in a later transaction.
    """
    seen: set[str] = set()
    for index, job in enumerate(jobs):
        id_ = job.envelope.id
        if id_ in seen:
            return jobs[:index]
        if id_ is not None:
            seen.add(id_)
    return jobs


def _nothing_after_a_loss(outcomes: list[Outcome], total: int) -> list[Outcome]:
    """Where one job is undecided, those after it are too: one may have the same key."""
    away = next((outcome for outcome in outcomes if isinstance(outcome, Unavailable)), None)
    return outcomes if away is None else outcomes + [away] * (total - len(outcomes))
