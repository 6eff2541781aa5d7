"""What becomes of a command whose transaction failed: it is refused, tried again, or given up.

Whether it was the command's own doing is known only of one that was alone in its transaction;
`processor.py` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import structlog

from worker.core.backoff import Backoff
from worker.core.errors import Conflict, Refusal, words
from worker.core.messages import Command, DeadLetter, Job, Outcome, Refused, Retry, Unavailable
from worker.core.registry import Registry
from worker.database import ledger
from worker.database.engine import Sessions
from worker.database.errors import violation_of
from worker.processing.custom_handler import HandlerFault
from worker.processing.fault_kinds import FaultKind, classify, is_doubtful, is_of_the_database
from worker.processing.outcomes import Outcomes, entry_for
from worker.processing.row_cache import NotWritten
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
        contention_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._outcomes = outcomes
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._contention_seconds = contention_seconds

    async def lost(self, jobs: Sequence[Job], fault: BaseException) -> list[Outcome]:
        """The database is down; it may be that a command takes it down."""
        if is_doubtful(fault):
            for job in jobs:
                job.losses += 1
            job = jobs[0]
            if len(jobs) == 1 and job.losses >= MAX_LOSSES:
                return [await self.give_up(job, job.losses)]
            if len(jobs) == 1 and job.losses > SUSPECT_LOSSES:
                return [Retry(reason_of(fault), self._backoff.delay(job.losses))]
        return [Unavailable(reason_of(fault)) for _ in jobs]

    async def outcome(self, job: Job, fault: BaseException, kind: FaultKind) -> Outcome:
        """A command failed alone, with the database up: refuse it, try it again, or give it up."""
        if isinstance(fault, ledger.LedgerRace):
            return _DONE_ELSEWHERE
        refusal = self._refusal(job, fault)
        if refusal is not None:
            return await self._remember(job, self._outcomes.refused(job.item, refusal))
        if kind is FaultKind.CONTENTION and self._may_wait(job):
            return self._wait(job, fault)
        if kind is FaultKind.OUTAGE and is_of_the_database(fault):
            return await self._broke(job, fault)
        job.failures += 1
        self._log_attempt(job, fault)
        if kind is FaultKind.PERMANENT or job.failures >= self._max_attempts:
            return await self.give_up(job, job.failures)
        return Retry(reason_of(fault), self._backoff.delay(job.failures))

    async def _broke(self, job: Job, fault: BaseException) -> Outcome:
        """What the command met would be an outage, were the database not up.

        Connections are ended one by one, too, and so more often than handlers may fail.
        """
        job.losses += 1
        log.info("a connection was lost", command=job.envelope.id, reason=reason_of(fault))
        if job.losses >= MAX_LOSSES:
            return await self.give_up(job, job.losses)
        return Retry(reason_of(fault), self._backoff.delay(job.losses))

    def _may_wait(self, job: Job) -> bool:
        now = monotonic()
        if job.waiting_since is None:
            job.waiting_since = now
        return now - job.waiting_since < self._contention_seconds

    def _wait(self, job: Job, fault: BaseException) -> Retry:
        job.waits += 1
        log.info("others are in the way", command=job.envelope.id, reason=reason_of(fault))
        return Retry(reason_of(fault), self._backoff.delay(job.waits))

    def _log_attempt(self, job: Job, fault: BaseException) -> None:
        told = {
            "command": job.envelope.id,
            "type": job.envelope.type,
            "attempt": job.failures,
            "of": self._max_attempts,
            "reason": reason_of(fault),
        }
        try:
            log.warning("attempt failed", **told, exc_info=fault if job.failures == 1 else None)
        except Exception:  # an exception's own code takes part in its traceback
            log.warning("attempt failed", **told)

    async def give_up(self, job: Job, attempts: int) -> Outcome:
        """The command has failed for good, after so many attempts."""
        return await self._remember(job, self._outcomes.failed(job.item, attempts))

    def _refusal(self, job: Job, fault: BaseException) -> Refusal | None:
        """What a violated rule of the database means, for the command's entity; never fails."""
        if not isinstance(job.item, Command):
            return None
        entity = self._registry[job.item.entity]
        if isinstance(fault, NotWritten):
            return Conflict(
                f"the database leaves the {entity.name} as it is: a trigger or a policy of it "
                "passes this over"
            )
        by_handler = isinstance(fault, HandlerFault)
        violation = violation_of(fault.__cause__ if by_handler else fault)
        if entity.explain is None or violation is None:
            return None
        if by_handler and violation.code[:2] != "23":  # its statements are its own
            return None
        try:
            refusal = entity.explain(entity, job.item, violation)
        except BaseException as error:  # it may be an entity's own, like its handlers
            name = violation.constraint or violation.code
            log.exception("a constraint cannot be explained", name=name, reason=words(error))
            return None
        return refusal if isinstance(refusal, Refusal) else None

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
                case FaultKind.OUTAGE:
                    return Unavailable(reason_of(fault))
                case FaultKind.CONTENTION if self._may_wait(job):
                    return self._wait(job, fault)
                case FaultKind.TRANSIENT if job.failures < 2 * self._max_attempts:
                    job.failures += 1
                    return Retry(reason_of(fault), self._backoff.delay(job.failures))
            # What cannot be written down is answered all the same, at least once.
            log.warning("outcome not recorded", command=job.envelope.id, reason=reason_of(fault))
        return outcome


def reason_of(fault: BaseException) -> str:
    """What was raised and what it says, with the name of the handler that did so."""
    if not isinstance(fault, HandlerFault) or fault.__cause__ is None:
        return words(fault)
    return f"{type(fault.__cause__).__name__}: {fault}"
