"""What becomes of a command whose transaction failed: it is refused, tried again, or given up.

Whether it was the command's own doing is known only of one that was alone in its transaction;
`processor.py` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from sqlalchemy.exc import IntegrityError

from worker.core.backoff import Backoff
from worker.core.errors import Refusal
from worker.core.messages import Away, Command, DeadLetter, Job, Outcome, Refused, Retry
from worker.core.registry import Registry
from worker.database import ledger
from worker.database.engine import Sessions
from worker.processing.fault_kinds import Kind, classify, is_doubtful
from worker.processing.outcomes import Outcomes, entry_for
from worker.processing.transaction import is_new_try

log = structlog.get_logger(__name__)

# A connection that breaks under the same command this often puts the command itself in doubt …
SUSPECT_LOSSES = 3
# … and this often, alone and while the database is well, convicts it.
MAX_LOSSES = 20

_DONE_ELSEWHERE = Retry("the same command was just done elsewhere", 0)


class Failures:
    """Decides, and writes down in the ledger what ended without effect."""

    def __init__(
        self,
        sessions: Sessions,
        registry: Registry,
        outcomes: Outcomes,
        *,
        max_attempts: int,
        backoff: Backoff,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._outcomes = outcomes
        self._max_attempts = max_attempts
        self._backoff = backoff

    async def lost(self, jobs: Sequence[Job], fault: Exception) -> list[Outcome]:
        """The database went away; or so it seems, under a command that it cannot bear."""
        if is_doubtful(fault):
            for job in jobs:
                job.losses += 1
            job = jobs[0]
            if len(jobs) == 1 and job.losses >= MAX_LOSSES:
                return [await self.give_up(job, job.losses)]
            if len(jobs) == 1 and job.losses > SUSPECT_LOSSES:
                return [Retry(_summary(fault), self._backoff.delay(job.losses))]
        return [Away(_summary(fault)) for _ in jobs]

    async def outcome(self, job: Job, fault: Exception, kind: Kind) -> Outcome:
        """A command failed alone: refuse it, try it again, or give it up."""
        if isinstance(fault, ledger.LedgerRace):
            return _DONE_ELSEWHERE
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
            return await self.give_up(job, job.failures)
        return Retry(_summary(fault), self._backoff.delay(job.failures))

    async def give_up(self, job: Job, attempts: int) -> Outcome:
        """The command has failed for good, after so many attempts."""
        return await self._remember(job, self._outcomes.failed(job.item, attempts))

    def _refusal(self, job: Job, fault: Exception) -> Refusal | None:
        """What a violated constraint means, for the entity of the command."""
        if not isinstance(fault, IntegrityError) or not isinstance(job.item, Command):
            return None
        entity = self._registry[job.item.entity]
        constraint = getattr(getattr(fault.orig, "__cause__", None), "constraint_name", None)
        if entity.explain is None or not constraint:
            return None
        return entity.explain(entity, job.item, constraint)

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
            return _DONE_ELSEWHERE
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


def _summary(fault: BaseException) -> str:
    first = (str(fault).strip().splitlines() or [""])[0]
    return f"{type(fault).__name__}: {first}"[:300]
