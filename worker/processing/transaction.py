"""One transaction, a step a line: look, carry out, write, remember.

ledger: seen already? ─▶ handlers ─▶ flush ─▶ ledger: store the answers ─▶ (COMMIT)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.errors import Refusal
from worker.core.messages import (
    REDRIVE_HEADER,
    Command,
    Event,
    Job,
    Outcome,
    Rejected,
    Settled,
    utc_now,
)
from worker.core.registry import Entity, Registry, Verb
from worker.database import ledger
from worker.database.ledger import DEAD_LETTERED, Entry
from worker.processing.custom_handler import CustomHandler, HandlerFault
from worker.processing.outcomes import Outcomes, entry_for
from worker.processing.row_cache import Record
from worker.processing.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """How long a transaction, and a custom handler within it, may take."""

    budget_seconds: float
    """Age at which it takes no further command."""
    handler_timeout_seconds: float


class Transaction:
    """Runs jobs, whose command ids all differ, in the transaction that the session has begun.

    Any fault of any job is raised, for the caller to roll back; refusals are outcomes.
    """

    def __init__(
        self,
        session: AsyncSession,
        registry: Registry,
        outcome_of: Outcomes,
        limits: TransactionLimits,
    ) -> None:
        self._session = session
        self._registry = registry
        self._outcome_of = outcome_of
        self._work = UnitOfWork(session, registry)
        self._until = monotonic() + limits.budget_seconds
        self._limits = limits
        self._is_closed = False  # to further commands
        self._outcomes: list[Settled | None] = []
        self._again: set[str] = set()

    async def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Outcomes for the jobs that fit into the time budget: the first, and those after it."""
        seen = await self._look_up(jobs)
        await self._prepare([job for job in jobs if job.envelope.id not in seen])
        for job in jobs:
            entry = seen.get(job.envelope.id or "")
            self._outcomes.append(None)
            if entry is not None:
                self._outcomes[-1] = self._outcome_of.replayed(job, entry)
            elif isinstance(job.item, Rejected):
                self._outcomes[-1] = self._outcome_of.unusable(job.item)
            else:
                assert isinstance(job.item, Command)  # what is barred does not come here
                await self._carry_out(job.item, len(self._outcomes) - 1)
            if self._is_closed or monotonic() > self._until:
                break
        await self._work.flush()
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
        await self._remember(jobs, outcomes, seen)
        return list(outcomes)

    async def _look_up(self, jobs: Sequence[Job]) -> dict[str, Entry]:
        ids = [job.envelope.id for job in jobs if job.envelope.id is not None]
        entries = await ledger.lookup(self._session, ids)
        self._again = {
            id_
            for job in jobs
            if (id_ := job.envelope.id) in entries and is_new_try(job, entries[id_])
        }
        return {id_: entry for id_, entry in entries.items() if id_ not in self._again}

    async def _prepare(self, jobs: Sequence[Job]) -> None:
        by_entity: dict[str, list[Command]] = defaultdict(list)
        for job in jobs:
            if isinstance(job.item, Command) and self._verb(job.item)[1].batched:
                by_entity[job.item.entity].append(job.item)
        # In the registry's order, the same in every transaction, so that locks are taken in order.
        for entity in self._registry:
            if entity.prepare is not None and by_entity[entity.name]:
                await entity.prepare(self._work, by_entity[entity.name])

    def _verb(self, command: Command) -> tuple[Entity, Verb]:
        entity = self._registry[command.entity]
        return entity, entity.verbs[command.verb]

    async def _carry_out(self, command: Command, position: int) -> None:
        entity, verb = self._verb(command)
        try:
            if not verb.batched:
                await self._run_custom(entity, verb, command, position)
                return
            event = await verb.handle(self._work, command)
        except Refusal as refusal:
            self._outcomes[position] = self._outcome_of.refused(command, refusal)
            return
        # Not when the event is written: that is after all that comes before the flush.
        time = utc_now()

        def write_event() -> None:
            self._outcomes[position] = self._outcome_of.done(command, event, time)

        if isinstance(event.row, Record) and event.row.pending:
            self._work.owe(event.row, write_event)
        else:
            write_event()

    async def _run_custom(
        self, entity: Entity, verb: Verb, command: Command, position: int
    ) -> None:
        """A handler of one's own may do anything before it refuses: its traces are undone."""
        await self._work.isolate()

        def write_event(event: Event) -> None:
            self._outcomes[position] = self._outcome_of.done(command, event, utc_now())

        handler = CustomHandler(
            verb.handle, entity, command, timeout_seconds=self._limits.handler_timeout_seconds
        )
        try:
            await handler.run(self._session, write_event)
        except HandlerFault as fault:
            fault.position = position
            raise
        self._is_closed = handler.changed_settings

    async def _remember(
        self, jobs: Sequence[Job], outcomes: Sequence[Settled], seen: Mapping[str, Entry]
    ) -> None:
        new = [
            entry_for(job, outcome)
            for job, outcome in zip(jobs, outcomes, strict=False)
            if job.envelope.id not in seen
        ]
        entries = [entry for entry in new if entry is not None]
        await ledger.record(self._session, entries, again=self._again)


def is_new_try(job: Job, entry: Entry) -> bool:
    """A dead-lettered command had no effect: mended, or sent back on purpose, it is tried again."""
    if entry.outcome != DEAD_LETTERED:
        return False
    mended = entry.digest != job.envelope.digest
    return mended or REDRIVE_HEADER in job.envelope.delivery.headers
