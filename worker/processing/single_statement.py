"""A create alone in its group: one statement writes its row and its answer, and commits them.

A transaction takes six round trips for the same; docs/decisions.md has the figures. The answer
holds the row's id, which the database makes, so the statement itself puts it into the answer. And
the answer shows the row as it was sent, so the statement fails, with nothing written, where the
stored row is another: because of a trigger, a rounding, a rule.
"""

from __future__ import annotations

from functools import cache
from secrets import randbelow

from sqlalchemy import BigInteger, Boolean, DateTime, Double, Integer, String, Text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.core.errors import Refusal
from worker.core.messages import Command, Done, Event, Job, ResultEvent, utc_now
from worker.core.registry import Entity, Registry
from worker.database.row_with_entry import insert_and_record
from worker.processing.outcomes import Outcomes, entry_for
from worker.processing.row_cache import Record
from worker.processing.unit_of_work import UnitOfWork

ID_TO_COME = 10**38 + randbelow(9 * 10**38)
"""Stands for the id; another in each process, so that no command can hold it."""
PLAIN_TYPES = (BigInteger, Boolean, DateTime, Double, Integer, String, Text)
"""Of these a value that comes back equal is shown in an event as it was sent."""


class NeedsTransaction(Exception):
    """It is more than one statement can do; nothing has been written."""


@cache
def is_plain(entity: Entity) -> bool:
    """Whether one statement can create its rows at all."""
    types = [column.type for column in entity.fields.values()]
    return all(type(each) in PLAIN_TYPES and not each._variant_mapping for each in types)


class SingleStatementCreate:
    """Carries out one create that has an id, on a connection whose statements commit by themselves.

    What a constraint tells, the ledger's included, is not looked up: an `IntegrityError` tells it,
    and then nothing has been written. Nor has it where `NeedsTransaction` is raised: it is refused,
    or it turns out to be more than the insert of one row, all of it but the id known here.
    """

    def __init__(self, connection: AsyncConnection, registry: Registry, outcomes: Outcomes) -> None:
        self._connection = connection
        self._registry = registry
        self._outcomes = outcomes

    async def run(self, job: Job) -> Done:
        """Its outcome, committed."""
        command = job.item
        assert isinstance(command, Command)
        entity = self._registry[command.entity]
        record = await self._record(entity, command)
        if {*record.values, "id"} != set(entity.fields):
            raise NeedsTransaction
        values = dict(record.values)
        known = {**values, "id": ID_TO_COME}
        record.values = {name: known[name] for name in entity.fields}  # in their order
        record.pending = False
        done = self._outcomes.done(command, Event(f"{entity.name}.created", record), utc_now())
        entry = entry_for(job, done)
        assert entry is not None  # a command without an id does not come here
        id_ = await insert_and_record(self._connection, entity, values, entry, ID_TO_COME)
        if id_ is None:
            raise NeedsTransaction
        answer = done.answer
        body = answer.body.replace(b"%d" % ID_TO_COME, b"%d" % id_)
        return Done(ResultEvent(answer.id, answer.type, body))

    async def _record(self, entity: Entity, command: Command) -> Record:
        work = UnitOfWork(self._connection, self._registry, trusts_constraints=True)
        try:
            event = await entity.verbs[command.verb].handle(work, command)
        except Refusal as refusal:
            raise NeedsTransaction from refusal
        if not isinstance(event.row, Record):
            raise NeedsTransaction
        return event.row
