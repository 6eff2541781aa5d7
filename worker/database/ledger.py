"""The ledger: which commands were done, and what was answered.

A row is written in the transaction of the change itself. So it says at once whether a command took
effect (exactly once), what the answer was (a duplicate gets the same event), and what became of a
COMMIT whose reply was lost. The command stays unacknowledged until its event is confirmed: the
unacknowledged command is the outbox, and the ledger holds the event that it still owes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    LargeBinary,
    String,
    Text,
    Uuid,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from worker.core.messages import ResultEvent
from worker.core.models import Base
from worker.database.errors import explain

ROOM_BYTES = 1_000_000
"""More than is likely to find a place in what a table has left over."""

DONE, REFUSED, DEAD_LETTERED = "done", "refused", "dead_lettered"


class LedgerRow(Base):
    """What became of one command."""

    __tablename__ = "command_ledger"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        CheckConstraint(
            f"outcome IN ('{DONE}', '{REFUSED}', '{DEAD_LETTERED}')", name="outcome_known"
        ),
    )

    command_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    outcome: Mapped[str] = mapped_column(String(20))
    event_id: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    event_type: Mapped[str] = mapped_column(Text)
    # Text and not jsonb: a duplicate gets the very same bytes.
    event_body: Mapped[str] = mapped_column(Text)
    # Indexed: retention and `republish --since` look by time. Not that at which the transaction
    # began: another may have begun later, and changed a row before this one did.
    recorded_on: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp(), index=True
    )
    # Ascends in the order of recording, which no clock tells; 0 for entries older than this column.
    position: Mapped[int] = mapped_column(BigInteger, Identity())


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger."""

    command_id: str
    digest: bytes
    outcome: str
    answer: ResultEvent
    recorded_on: datetime | None = None
    position: int = 0
    """Its place in the order of recording, once it has one."""


class LedgerRace(Exception):
    """Another transaction recorded one of these commands first; nothing was written."""


# Statements on the table, not the class: the ORM would take the insert for one of its own.
_table = Base.metadata.tables[LedgerRow.__tablename__]
_ledger = _table.c
_VALUE_OF: Mapping[str, Callable[[Entry], object]] = {
    "command_id": lambda entry: entry.command_id,
    "digest": lambda entry: entry.digest,
    "outcome": lambda entry: entry.outcome,
    "event_id": lambda entry: entry.answer.id,
    "event_type": lambda entry: entry.answer.type,
    "event_body": lambda entry: entry.answer.body.decode(),
}
_STORED = tuple(_VALUE_OF)

# Arrays keep the text of a statement the same for every size of group, so it is prepared once.
_BY_IDS = select(*_ledger).where(_ledger.command_id == any_(bindparam("ids", type_=ARRAY(Text))))
_VALUES = (
    func.unnest(*(bindparam(name, type_=ARRAY(_ledger[name].type)) for name in _STORED))
    .table_valued(*_STORED, name="entry", with_ordinality="place")
    .render_derived()
)
# Sorted, so that positions are given in the order of the commands.
_INSERT = pg_insert(_table).from_select(
    _STORED, select(*(_VALUES.c[name] for name in _STORED)).order_by(_VALUES.c.place)
)
_RECORD_NEW = _INSERT.on_conflict_do_nothing(index_elements=[_ledger.command_id]).returning(
    _ledger.command_id
)
# A dead-lettered command had no effect, so it may be tried again, on purpose; all else is final.
_RECORD = _INSERT.on_conflict_do_update(
    index_elements=[_ledger.command_id],
    set_={name: _INSERT.excluded[name] for name in (*_STORED[1:], "recorded_on", "position")},
    where=(_ledger.outcome == DEAD_LETTERED)
    & (_ledger.command_id == any_(bindparam("again", type_=ARRAY(Text)))),
).returning(_ledger.command_id)


async def lookup(session: AsyncSession, command_ids: Sequence[str]) -> dict[str, Entry]:
    """The entries that exist for these commands, in one statement."""
    if not command_ids:
        return {}
    rows = await session.execute(_BY_IDS, {"ids": list(command_ids)})
    return {
        row.command_id: Entry(
            row.command_id,
            row.digest,
            row.outcome,
            ResultEvent(row.event_id, row.event_type, row.event_body.encode()),
            row.recorded_on,
            row.position,
        )
        for row in rows
    }


async def record(
    session: AsyncSession,
    entries: Sequence[Entry],
    *,
    again: Collection[str] = (),
) -> None:
    """Write the entries, in one statement; raise `LedgerRace` when one is there already.

    Entries of dead-lettered commands are replaced where these are tried `again`. Any other that is
    there was written by somebody who had the same command at the same time, and is its one answer.
    """
    if not entries:
        return
    values: dict[str, list[Any]] = {
        name: [value_of(entry) for entry in entries] for name, value_of in _VALUE_OF.items()
    }
    if again:
        statement, values["again"] = _RECORD, list(again)
    else:
        statement = _RECORD_NEW
    written = (await session.execute(statement, values)).all()
    if len(written) != len(entries):
        raise LedgerRace


def entry_table() -> dict[str, Column[Any]]:
    """The columns of an entry that its writer gives, by name."""
    return {name: _ledger[name] for name in _STORED}


def columns_of(entry: Entry) -> dict[str, object]:
    """Their values for an entry."""
    return {name: value_of(entry) for name, value_of in _VALUE_OF.items()}


async def check_room(engine: AsyncEngine) -> None:
    """Write an entry that needs new pages, and take it back; raise `Unreachable` where none are."""
    entry = {
        "command_id": f"room-{token_hex(8)}",
        "digest": bytes(32),
        "outcome": REFUSED,
        "event_id": str(uuid4()),
        "event_type": "room",
        "event_body": token_hex(ROOM_BYTES // 2),  # not to be compressed
    }
    try:
        async with engine.connect() as connection:
            await connection.execute(_table.insert(), entry)
            await connection.rollback()
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
