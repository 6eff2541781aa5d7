"""What the path `service` has the worker do: a command carries out the steps of the scenario.

The handler shares the transaction of its group, as those of `crud.py` do: what a group saves is the
COMMIT, the look into the ledger and the INSERTs, and each piece takes its own steps.
"""

from __future__ import annotations

from sqlalchemy import MetaData

from worker.core.messages import Command, Event, utc_now
from worker.core.models import NAMING, Row
from worker.core.registry import Entity, Registry, Verb
from worker.lab.transaction import LabTransaction
from worker.processing.unit_of_work import UnitOfWork

COMMAND, EVENT = "piece.do", "piece.done"


class LabRow(Row):
    """Root of the lab's own tables, which are none of the service's: they have no migrations."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING)


class Piece(LabRow):
    """One piece of work that was done."""

    __tablename__ = "pieces"


def registry_of(transaction: LabTransaction) -> Registry:
    """A registry that knows how to do pieces of work, and nothing else."""

    async def do(work: UnitOfWork, command: Command) -> Event:
        entity = work.registry[command.entity]
        await transaction.take_steps(work.session, 1)
        now = utc_now()
        values = {"version": 1, "created_on": now, "updated_on": now}
        return Event(EVENT, work.rows(entity).create(values))

    return Registry([Entity("piece", Piece, {"do": Verb(do, targeted=False, batched=True)})])
