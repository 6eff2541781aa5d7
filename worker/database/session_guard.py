"""What a handler of a user's own must not do with the transaction that it shares with others.

A handler, and all that it starts, is known by the context that it runs in. What it does by the
session is refused before anything has changed; what it does by another way, at the connection,
where all ways meet. There SQLAlchemy has taken the transaction for ended by then: `is_spent`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, TextClause, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from worker.core.tasks import Family, found_family

# What may stand in front of a statement: white space and comments.
_BEGINNING = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_ENDS_TRANSACTION = re.compile(
    _BEGINNING + r"(?:commit|end|abort|begin|start\s+transaction|prepare\s+transaction|discard"
    r"|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE | re.DOTALL,
)
_SAVEPOINT = re.compile(
    _BEGINNING + r"(?:savepoint|release|rollback\b.*\bto)\b", re.IGNORECASE | re.DOTALL
)
_CHANGES_SESSION = re.compile(
    _BEGINNING + r"(?:reset|set(?!\s+(?:local|constraints|transaction)))\b",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES_TRANSACTION = re.compile(
    _BEGINNING + r"set\s+(?:local|constraints)\b", re.IGNORECASE | re.DOTALL
)

_guard: ContextVar[SessionGuard | None] = ContextVar("guard of the handler that runs", default=None)


class RuleBroken(Exception):
    """A handler, or another hook of an entity's own, did what it must not do, and would again."""


class SessionGuard:
    """Of one run of a handler: keeps what it came to, and what it must not have done."""

    def __init__(self) -> None:
        self.returned: Any = None
        self.raised: BaseException | None = None
        self.broken: RuleBroken | None = None
        self.is_spent = False
        """Whether the connection can only be thrown away."""
        self.changed_settings = False
        self.family: Family = {}
        """The tasks that it has started."""
        self.closed = False
        """Whether the run is over: what it has left behind may not use the connection."""

    async def run(self, handler: Callable[[], Awaitable[Any]]) -> None:
        """Call the handler, in this task's context, and keep what comes of it."""
        _guard.set(self)
        self.family = found_family()
        try:
            self.returned = await handler()
        except BaseException as raised:  # some of these, out of a task, would end the loop
            self.raised = raised

    def refuse_end(self) -> None:
        """It may not end the transaction."""
        self._refuse(
            "must not begin, commit, roll back or close: its transaction is that of the ledger and "
            "of other commands, and is committed once it has returned. To undo a part, use "
            "`async with session.begin_nested()`; to undo all, raise a refusal"
        )

    def see(self, statement: str, *, is_text: bool) -> None:
        """Refuse a statement that ends the transaction, or outlives it."""
        if self.closed:
            raise RuleBroken("used the session after it had returned")
        if is_text and _SAVEPOINT.match(statement):
            self._refuse("must leave savepoints to the session: use session.begin_nested()")
        if _ENDS_TRANSACTION.match(statement):
            self.refuse_end()
        if _CHANGES_SESSION.match(statement):
            self._refuse("must not change settings that outlive its transaction: use SET LOCAL")
        if _CHANGES_TRANSACTION.match(statement):
            self.changed_settings = True

    def _refuse(self, detail: str) -> None:
        # Kept as well: the handler may swallow it.
        self.broken = RuleBroken(detail)
        raise self.broken


@asynccontextmanager
async def guarded(session: AsyncSession) -> AsyncIterator[None]:
    """Have what is called within keep the rules, too; raises `RuleBroken` where it has not."""
    watch(await session.connection())
    guard = SessionGuard()
    token = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(token)
    if guard.broken is not None:  # and swallowed
        raise guard.broken


class GuardedSession(Session):
    """A session whose transaction a handler cannot end."""

    def commit(self) -> None:
        """See `Session`."""
        _refuse_end()
        super().commit()

    def rollback(self) -> None:
        """See `Session`."""
        _refuse_end()
        super().rollback()

    def close(self) -> None:
        """See `Session`."""
        _refuse_end()
        super().close()

    def reset(self) -> None:
        """See `Session`."""
        _refuse_end()
        super().reset()

    def invalidate(self) -> None:
        """See `Session`."""
        _refuse_end()
        super().invalidate()

    def prepare(self) -> None:
        """See `Session`."""
        _refuse_end()
        super().prepare()

    def begin(self, nested: bool = False) -> SessionTransaction:
        """See `Session`."""
        if not nested:
            _refuse_end()
        return super().begin(nested)


def watch(connection: AsyncConnection) -> None:
    """Have the rules kept on this connection, too, for as long as it is out of the pool."""
    target = connection.sync_connection
    assert target is not None
    if event.contains(target, "commit", _before_end):
        return
    event.listen(target, "commit", _before_end)
    event.listen(target, "rollback", _before_end)
    event.listen(target, "before_cursor_execute", _before_statement)


def _refuse_end() -> None:
    guard = _guard.get()
    if guard is not None:
        guard.refuse_end()


def _before_end(_: Connection) -> None:
    guard = _guard.get()
    if guard is not None:
        guard.is_spent = True
        guard.refuse_end()


def _before_statement(
    _: Connection, __: Any, statement: str, ___: Any, context: Any, ____: bool
) -> None:
    guard = _guard.get()
    if guard is not None:
        compiled = getattr(context, "compiled", None)
        is_text = compiled is None or isinstance(compiled.statement, TextClause)
        guard.see(statement, is_text=is_text)
