"""A stand-in for PostgreSQL: what is committed, and what the server says of faults.

A ledger; for each key a row that counts the commands applied to it. How it is come by and changed
is in `session.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from tests.support.interleavings.schedule import Move, World
from worker.core.errors import Unreachable
from worker.database.ledger import Entry

if TYPE_CHECKING:
    from tests.support.interleavings.session import Session

DEADLOCK, CANCELLED, SERIALIZATION = "40P01", "57014", "40001"
UNIQUE = "23505"


class Told(Exception):
    """What the server says, with its SQLSTATE."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__(sqlstate or "the connection was lost")
        self.sqlstate = sqlstate


def server_says(sqlstate: str | None) -> DBAPIError:
    """The fault as SQLAlchemy raises it; without a code, a connection that was lost."""
    return OperationalError("…", {}, Told(sqlstate), connection_invalidated=sqlstate is None)


def violates(constraint: str) -> IntegrityError:
    """The fault by which a constraint tells that it is violated."""
    told = Told(UNIQUE)
    cause = type("Cause", (Exception,), {"constraint_name": constraint})()
    told.__cause__ = cast(BaseException, cause)
    return IntegrityError("…", {}, told)


@dataclass(frozen=True)
class Effect:
    """A command has been applied to a row."""

    row: str
    command: str


class Database:
    """The server: what is committed, and which transactions are open.

    `faults` is how many of the next statements fail for a reason that passes.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger: dict[str, Entry] = {}
        self.answers: dict[str, list[bytes]] = defaultdict(list)
        """Every event that the ledger has held for a command."""
        self.effects: list[Effect] = []
        self.connections: list[Session] = []
        self.faults = 0
        self.is_away = False

    def moves(self) -> Iterator[Move]:
        """What can happen next: on each connection, and its own return."""
        for session in self.connections:
            yield from session.link.moves()
        if self.is_away:
            yield self.come_back

    def go_away(self) -> None:
        """End all connections, and take no new ones."""
        self.is_away = True
        for session in list(self.connections):
            session.link.cut(arriving=self.world.choices.below(2))
            session.link.notice_now()

    def come_back(self) -> None:
        """Take connections again."""
        self.is_away = False
        self.world.tell("database back")

    async def probe(self) -> None:
        """Answer, or raise `Unreachable`."""
        if self.is_away:
            raise Unreachable("the database is away")

    def count(self, row: str) -> int:
        """How many commands have been applied to a row."""
        return sum(effect.row == row for effect in self.effects)

    def take_fault(self) -> bool:
        """Whether this statement is to fail."""
        if not self.faults:
            return False
        self.faults -= 1
        return True


class Client(Protocol):
    """Who uses the database."""

    alive: bool
