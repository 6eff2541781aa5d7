"""A create that comes alone: one statement writes its row and its answer, and commits them.

A transaction takes four round trips for the same: BEGIN, the row, the ledger, COMMIT. The answer
holds the row's id, which the database makes; so the statement itself puts it into the answer.
"""

from __future__ import annotations

from secrets import randbelow

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.core.errors import Refusal
from worker.core.messages import Answer, Command, Done, Job, Outcome, Settled, utc_now
from worker.core.registry import Registry
from worker.database import ledger
from worker.database.ledger import Entry
from worker.processing.outcomes import Outcomes, entry_for
from worker.processing.row_cache import NeedsTransaction, Record
from worker.processing.unit_of_work import Work

ID_TO_COME = 10**38 + randbelow(9 * 10**38)
"""Stands for the id; another in each process, so that no command can hold it."""


class LoneCreate:
    """Carries out one create that has an id, on a connection whose statements commit by themselves.

    Nothing is looked up that a constraint tells, the ledger's included, by a fault: then nothing
    has been written. Raises `NeedsTransaction`, with nothing written either, where the command
    turns out to be more than the insert of one row whose other columns are all known here.
    """

    def __init__(self, connection: AsyncConnection, registry: Registry, outcomes: Outcomes) -> None:
        self._connection = connection
        self._registry = registry
        self._outcomes = outcomes
        self._work = Work(connection, registry, trust=True)

    async def run(self, job: Job) -> Outcome:
        """Its outcome, committed."""
        command = job.item
        assert isinstance(command, Command)
        entity = self._registry[command.entity]
        if entity.prepare is not None:
            await entity.prepare(self._work, [command])
        try:
            event = await entity.verbs[command.verb].handle(self._work, command)
        except Refusal as refusal:
            outcome = self._outcomes.refused(command, refusal)
            await ledger.record(self._connection, [_entry(job, outcome)])
            return outcome
        if not isinstance(event.row, Record):
            raise NeedsTransaction
        time = utc_now()
        insert, values = self._work.sole_insert(event.row)
        event.row.values["id"] = ID_TO_COME
        entry = _entry(job, self._outcomes.done(command, event, time))
        id_ = await ledger.insert_and_record(self._connection, insert, values, entry, ID_TO_COME)
        body = entry.answer.body.replace(b"%d" % ID_TO_COME, b"%d" % id_)
        return Done(Answer(entry.answer.id, entry.answer.type, body))


def _entry(job: Job, outcome: Settled) -> Entry:
    entry = entry_for(job, outcome)
    assert entry is not None  # a command without an id does not come here
    return entry
