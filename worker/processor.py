"""A group of commands in, one transaction, an outcome for each.

A group can never change what a command does: where anything in it fails, all of it is rolled back
and its halves run on their own, down to single commands. So only a command that fails alone is at
fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.backoff import Backoff
from worker.codec import Codec
from worker.database import ledger
from worker.database.engine import Sessions
from worker.database.faults import sqlstate
from worker.database.frozen import LOCK_TIMEOUT, end_frozen
from worker.errors import Refusal
from worker.lone import LoneCreate
from worker.messages import (
    Away,
    Barred,
    Command,
    DeadLetter,
    Held,
    Job,
    Outcome,
    Refused,
    Retry,
)
from worker.outcomes import Outcomes, entry_for
from worker.registry import Registry, Verb
from worker.retry import Kind, classify, is_doubtful
from worker.rows import NeedsTransaction
from worker.transaction import Transaction, is_new_try

log = structlog.get_logger(__name__)

# A connection that breaks under the same command this often puts the command itself in doubt …
SUSPECT_LOSSES = 3
# … and this often, alone and while the database is well, convicts it.
MAX_LOSSES = 20


class Processor:
    """Carries commands out. Safe to call from several lanes at once.

    `max_attempts` bounds the attempts at a command whose handler fails, `max_deliveries` those at
    one that, run alone, took the process down each time; `budget_seconds` is the age at which a
    transaction takes no further command. A session of another worker that holds a lock and has been
    frozen for `frozen_seconds` is ended. `autocommit` is an engine for a create that comes alone;
    with none, it has a transaction like all others.
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
        autocommit: AsyncEngine | None = None,
    ) -> None:
        self._sessions = sessions
        self._autocommit = autocommit
        self._registry = registry
        self._outcomes = Outcomes(registry, codec)
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._max_deliveries = max_deliveries
        self._budget_seconds = budget_seconds
        self._frozen_seconds = frozen_seconds

    async def process(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcome of each job, in order. Never raises but when cancelled."""
        # What is barred never comes near the ledger: it could take another command's id, or be
        # told the answer to it.
        allowed = [job for job in jobs if not isinstance(job.item, Barred)]
        outcomes = iter(await self._process(allowed) if allowed else ())
        return [
            self._outcomes.barred(job.item) if isinstance(job.item, Barred) else next(outcomes)
            for job in jobs
        ]

    async def _process(self, jobs: Sequence[Job]) -> list[Outcome]:
        if len(jobs) == 1 and jobs[0].envelope.delivery.delivery_count >= self._max_deliveries:
            outcome = await self._give_up(jobs[0], jobs[0].envelope.delivery.delivery_count)
            if not isinstance(outcome, Retry):
                return [outcome]
            # It is in the ledger: it was done, but its worker died before it could say so.
        outcomes: list[Outcome] = []
        held: set[str] = set()
        while len(outcomes) < len(jobs):
            batch = _distinct(jobs[len(outcomes) :])
            outcomes += await self._together(batch, held)
            outcomes = _nothing_after_a_loss(outcomes, len(jobs))
        return outcomes

    async def _together(self, jobs: Sequence[Job], held: set[str]) -> list[Outcome]:
        """Run the jobs in one transaction if that goes well, else in smaller ones.

        `held` collects the keys that wait for a retry; no later command with such a key may run.
        """
        outcomes: dict[int, Outcome] = {}
        while ready := [job for job in jobs if id(job) not in outcomes and job.key not in held]:
            ran = await self._ready_together(ready, held)
            outcomes |= {id(job): outcome for job, outcome in zip(ready, ran, strict=False)}
            if any(isinstance(outcome, Away) for outcome in ran):
                break
        found: list[Outcome] = []
        for job in jobs:
            if id(job) in outcomes:
                found.append(outcomes[id(job)])
            elif job.key in held:
                found.append(Held())
            else:
                break
        return _nothing_after_a_loss(found, len(jobs))

    async def _ready_together(self, jobs: list[Job], held: set[str]) -> list[Outcome]:
        """Outcomes of the first jobs at least: a transaction may run out of time."""
        try:
            return await self._transact(jobs)
        except Exception as fault:
            return await self._recover(jobs, fault, held)

    async def _transact(self, jobs: Sequence[Job]) -> list[Outcome]:
        if len(jobs) == 1 and self._is_ordinary(jobs[0]):
            # Most are neither duplicates nor in conflict, and two looks are half of what one costs
            # that comes alone. Where a constraint says otherwise, all of it runs again, seeing.
            with suppress(ledger.LedgerRace, IntegrityError, NeedsTransaction):
                return await self._attempt_lone(jobs[0])
        return await self._attempt(jobs)

    async def _attempt_lone(self, job: Job) -> list[Outcome]:
        verb = self._verb(job)
        if self._autocommit is None or verb.targeted or job.envelope.id is None:
            return await self._attempt([job], trust=True)
        async with self._autocommit.connect() as connection:
            return [await LoneCreate(connection, self._registry, self._outcomes).run(job)]

    async def _attempt(self, jobs: Sequence[Job], *, trust: bool = False) -> list[Outcome]:
        async with self._sessions.begin() as session:
            transaction = Transaction(
                session, self._registry, self._outcomes, self._budget_seconds, trust=trust
            )
            return await transaction.run(jobs)

    def _is_ordinary(self, job: Job) -> bool:
        """Whether the command seems to be new, and its handler leaves all checks to constraints."""
        tried = job.envelope.delivery.delivery_count or job.failures or job.losses
        return not tried and isinstance(job.item, Command) and self._verb(job).batched

    def _verb(self, job: Job) -> Verb:
        assert isinstance(job.item, Command)
        return self._registry[job.item.entity].verbs[job.item.verb]

    async def _recover(self, jobs: list[Job], fault: Exception, held: set[str]) -> list[Outcome]:
        kind = classify(fault)
        if sqlstate(fault) == LOCK_TIMEOUT:
            await end_frozen(self._sessions, after_seconds=self._frozen_seconds)
        suspect = any(job.losses >= SUSPECT_LOSSES for job in jobs)
        if len(jobs) > 1 and (kind is not Kind.OUTAGE or suspect):
            middle = len(jobs) // 2
            outcomes = await self._together(jobs[:middle], held)
            if any(isinstance(outcome, Away) for outcome in outcomes):
                return outcomes
            return outcomes + await self._together(jobs[middle:], held)
        if kind is Kind.OUTAGE:
            outcomes = await self._lose(jobs, fault)
        else:
            outcomes = [await self._fail(jobs[0], fault, kind)]
        if isinstance(outcomes[0], Retry) and jobs[0].key is not None:
            held.add(jobs[0].key)
        return outcomes

    async def _lose(self, jobs: Sequence[Job], fault: Exception) -> list[Outcome]:
        """The database went away; or so it seems, under a command that it cannot bear."""
        if is_doubtful(fault):
            for job in jobs:
                job.losses += 1
            job = jobs[0]
            if len(jobs) == 1 and job.losses >= MAX_LOSSES:
                return [await self._give_up(job, job.losses)]
            if len(jobs) == 1 and job.losses > SUSPECT_LOSSES:
                return [Retry(_summary(fault), self._backoff.delay(job.losses))]
        return [Away(_summary(fault)) for _ in jobs]

    async def _fail(self, job: Job, fault: Exception, kind: Kind) -> Outcome:
        """A command failed alone: refuse it, try it again, or give it up."""
        if isinstance(fault, ledger.LedgerRace):
            return Retry("the same command was just done elsewhere", 0)
        refusal = self._refusal(job, fault)
        if refusal is not None:
            return await self._remember(job, self._outcomes.refused(job.item, refusal))
        job.failures += 1
        log.warning(
            "attempt failed",
            command=job.envelope.id,
            type=job.envelope.type,
            attempt=job.failures,
            of=self._max_attempts,
            reason=_summary(fault),
            exc_info=fault if job.failures == 1 else None,
        )
        if kind is Kind.PERMANENT or job.failures >= self._max_attempts:
            return await self._give_up(job, job.failures)
        return Retry(_summary(fault), self._backoff.delay(job.failures))

    def _refusal(self, job: Job, fault: Exception) -> Refusal | None:
        """What a violated constraint means, for the entity of the command."""
        if not isinstance(fault, IntegrityError) or not isinstance(job.item, Command):
            return None
        entity = self._registry[job.item.entity]
        constraint = getattr(getattr(fault.orig, "__cause__", None), "constraint_name", None)
        if entity.explain is None or not constraint:
            return None
        return entity.explain(entity, job.item, constraint)

    async def _give_up(self, job: Job, attempts: int) -> Outcome:
        return await self._remember(job, self._outcomes.failed(job.item, attempts))

    async def _remember(self, job: Job, outcome: Refused | DeadLetter) -> Outcome:
        """Record, in a transaction of its own, a command that had no effect."""
        entry = entry_for(job, outcome)
        if entry is None:
            return outcome
        try:
            async with self._sessions.begin() as session:
                known = (await ledger.lookup(session, [entry.command_id])).get(entry.command_id)
                again = known is not None and is_new_try(job, known)
                await ledger.record(session, [entry], again=[entry.command_id] if again else ())
        except ledger.LedgerRace:
            return Retry("the same command was just done elsewhere", 0)
        except Exception as fault:
            match classify(fault):
                case Kind.OUTAGE:
                    return Away(_summary(fault))
                case Kind.TRANSIENT if job.failures < 2 * self._max_attempts:
                    job.failures += 1
                    return Retry(_summary(fault), self._backoff.delay(job.failures))
            # What cannot be written down is answered all the same, at least once.
            log.warning("outcome not recorded", command=job.envelope.id, reason=_summary(fault))
        return outcome


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
    away = next((outcome for outcome in outcomes if isinstance(outcome, Away)), None)
    return outcomes if away is None else outcomes + [away] * (total - len(outcomes))


def _summary(fault: BaseException) -> str:
    first = (str(fault).strip().splitlines() or [""])[0]
    return f"{type(fault).__name__}: {first}"[:300]
