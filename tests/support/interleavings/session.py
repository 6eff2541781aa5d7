"""A connection to the stand-in for PostgreSQL, at the level of statements.

READ COMMITTED with locks: who writes what another transaction has written waits for its end; who
would wait in a circle is told so. What is on its way to the server when a connection is cut may
still be done, the COMMIT included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from tests.support.interleavings.database import (
    CANCELLED,
    DEADLOCK,
    SERIALIZATION,
    Client,
    Database,
    Effect,
    server_says,
)
from tests.support.interleavings.links import Blocked, Link
from worker.database.ledger import DEAD_LETTERED, Entry, LedgerRace

T = TypeVar("T")

Lock = tuple[str, str]
"""What is locked: the kind of row, and which."""


class Session:
    """A connection to the database, for one transaction: the client's side, and the server's."""

    def __init__(self, database: Database, client: Client) -> None:
        self.client = client
        self.waits_for: Session | None = None
        self._database = database
        self._locks: list[Lock] = []
        self._entries: dict[str, Entry] = {}
        self._effects: list[Effect] = []
        self._failed = False
        self._ended = False
        self.link = Link(database.world, lambda: server_says(None), self._gone)
        self.link.may_serve = lambda: self.link.is_cut or not self._is_blocked

    async def lookup(self, ids: Sequence[str]) -> dict[str, Entry]:
        """See `ledger.lookup`."""
        return await self._execute(lambda: self._lookup(ids)) if ids else {}

    async def record(self, entries: Sequence[Entry], *, again: Collection[str]) -> None:
        """See `ledger.record`."""
        if not entries:
            return
        locks = [("ledger", entry.command_id) for entry in entries]
        if await self._execute(lambda: self._record(entries, again), locks) != len(entries):
            raise LedgerRace

    async def apply(self, row: str, command: str) -> int:
        """Apply a command to a row; return how many have been applied to it."""
        return await self._execute(lambda: self._apply(row, command), [("row", row)])

    async def fail(self, error: Exception) -> None:
        """Have a statement fail."""

        def statement() -> None:
            raise error

        await self._execute(statement)

    async def commit(self) -> None:
        """Make it last."""
        if self._is_connected:
            await self.link.ask(self._commit)

    async def roll_back(self) -> None:
        """Undo it."""
        if self._is_connected and not self.link.is_cut and not self._ended:
            with suppress(DBAPIError):  # it is undone all the same
                await self.link.ask(self._end)

    def leave(self) -> None:
        """The client is done with the connection."""
        if self._is_connected and not self.link.is_cut:
            self._database.connections.remove(self)

    @property
    def _is_connected(self) -> bool:
        return self.link.is_cut or self in self._database.connections

    def open(self) -> None:
        """Connect, if that is yet to be done."""
        if self._is_connected:
            return
        if self._database.is_away or not self.client.alive:
            raise ConnectionRefusedError("the database is away")
        self._database.connections.append(self)

    async def _execute(self, statement: Callable[[], T], locks: Sequence[Lock] = ()) -> T:
        self.open()
        wanted = list(locks)

        def serve() -> T:
            if self._failed:
                raise server_says("25P02")
            try:
                self._lock(wanted)
                if self._database.take_fault():
                    raise server_says(CANCELLED)
                return statement()
            except DBAPIError:
                self._failed = True
                raise

        return await self.link.ask(serve)

    # What the server does.

    def _lock(self, wanted: list[Lock]) -> None:
        """Take the locks one by one; those that are taken stay taken."""
        while wanted:
            self._wants = wanted[0]
            self.waits_for = next((each for each in self._others if wanted[0] in each._locks), None)
            if self.waits_for is not None:
                if self._is_in_a_circle():
                    self.waits_for = None
                    self._database.world.tell("deadlock")
                    raise server_says(DEADLOCK)
                self._database.world.tell("lock waited for", str(wanted[0]))
                raise Blocked
            self._locks.append(wanted.pop(0))

    @property
    def _others(self) -> Iterator[Session]:
        return (each for each in self._database.connections if each is not self)

    @property
    def _is_blocked(self) -> bool:
        return self.waits_for is not None and self._wants in self.waits_for._locks

    def _is_in_a_circle(self) -> bool:
        next_ = self.waits_for
        while next_ is not None and next_ is not self:
            next_ = next_.waits_for if next_._is_blocked else None
        return next_ is self

    def _lookup(self, ids: Sequence[str]) -> dict[str, Entry]:
        known = self._database.ledger | self._entries
        return {id_: known[id_] for id_ in ids if id_ in known}

    def _record(self, entries: Sequence[Entry], again: Collection[str]) -> int:
        written = 0
        for entry in entries:
            there = self._database.ledger.get(entry.command_id)
            if there is None or (there.outcome == DEAD_LETTERED and entry.command_id in again):
                self._entries[entry.command_id] = entry
                written += 1
        return written

    def _apply(self, row: str, command: str) -> int:
        self._effects.append(Effect(row, command))
        return self._database.count(row) + sum(effect.row == row for effect in self._effects)

    def _commit(self) -> None:
        if self._ended:
            return
        if self._database.take_fault():
            self._end()
            raise server_says(SERIALIZATION)
        if not self._failed:
            self._database.ledger |= self._entries
            for id_, entry in self._entries.items():
                self._database.answers[id_].append(entry.answer.body)
            self._database.effects += self._effects
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._entries, self._effects = {}, []
        self._locks.clear()

    def _gone(self) -> None:
        self._end()
        self._database.connections.remove(self)
