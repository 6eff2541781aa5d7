"""A handler of a user's own, and whatever it does: its event, its refusal, or a `HandlerFault`.

It runs in a task of its own, so that it can be ended, and can end or cancel nothing but itself. It
shares the transaction with other commands, so what would end that, or outlive it, is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.core.errors import Refusal, first_words
from worker.core.messages import Command, Event
from worker.core.registry import Entity, Handler
from worker.core.tasks import ignore_exception, is_cancelled
from worker.database.pool.pool import held_by
from worker.database.session_guard import RuleBroken, SessionGuard, watch
from worker.processing.outcomes import Unpublishable

log = structlog.get_logger(__name__)

GRACE_SECONDS = 1
"""How long a handler, or a task that it left behind, may take to end once it is cancelled."""


class HandlerFault(Exception):
    """A handler failed, took too long, or broke a rule; `__cause__` is what was raised.

    `permanent` is what it would do again. `connection_lost` is whether the transaction's own
    connection broke under it: other connections are the handler's own business.
    """

    def __init__(
        self, detail: str, *, permanent: bool = False, connection_lost: bool = False
    ) -> None:
        super().__init__(detail)
        self.permanent = permanent
        self.connection_lost = connection_lost
        self.position = 0
        """Of its command among those of the transaction."""


class CustomHandler:
    """One run of a handler, between savepoints of the session's transaction."""

    def __init__(
        self, handler: Handler, entity: Entity, command: Command, *, timeout_seconds: float
    ) -> None:
        self._handler = handler
        self._entity = entity
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._name = getattr(handler, "__qualname__", None) or repr(handler)
        self._guard = SessionGuard()

    @property
    def changed_settings(self) -> bool:
        """Whether it has set what holds for the rest of the transaction."""
        return self._guard.changed_settings

    async def run(self, session: AsyncSession, finish: Callable[[Event], None]) -> None:
        """Carry out the command and `finish` with its event. Raises a `Refusal` or `HandlerFault`.

        Whatever it raises, nothing of what the handler wrote is left.
        """
        connection = await session.connection()  # from here on, what fails is the handler's doing
        watch(connection)
        try:
            async with session.begin_nested():
                event = await self._event(session, connection)
                await self._settle(session, event)
                finish(event)
        except BaseException as raised:
            if is_cancelled():
                raise
            if isinstance(raised, Refusal) and self._guard.broken is None:
                raise
            raise self._fault(raised, connection) from raised

    async def _event(self, session: AsyncSession, connection: AsyncConnection) -> Any:
        """What the handler returns, once it and all that it started have ended."""
        guard = self._guard
        task = asyncio.create_task(guard.run(lambda: self._handler(session, self._command)))
        with held_by(task):
            try:
                await asyncio.wait({task}, timeout=self._timeout_seconds)
            finally:
                in_time = task.done()
                guard.closed = True
                await self._end(task, session, connection)
        if not in_time:
            raise TimeoutError(f"it did not return within {self._timeout_seconds:g} s")
        if guard.raised is not None:
            raise guard.raised
        return guard.returned

    async def _end(
        self, task: asyncio.Task[None], session: AsyncSession, connection: AsyncConnection
    ) -> None:
        """End what still runs of it."""
        left = {child: name for child, name in self._guard.family.items() if not child.done()}
        pending = {*left, *([] if task.done() else [task])}
        for future in pending:
            ignore_exception(future).cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=GRACE_SECONDS)
        with suppress(Exception):
            if task in pending:  # it could go on with the connection, between others' statements
                await connection.invalidate()
            elif self._guard.is_spent:
                await session.invalidate()
        if left:
            log.warning(
                "a handler left tasks behind; they were cancelled",
                handler=self._name,
                type=self._command.type,
                tasks=[*left.values()][:10],
                still_running=len(pending),
            )

    async def _settle(self, session: AsyncSession, event: Any) -> None:
        """Have its row as the database has it; refuse what is no event of this entity."""
        if self._guard.broken is not None:  # and it went on
            raise self._guard.broken
        if not isinstance(event, Event):
            raise RuleBroken(f"returned {type(event).__name__} in place of an Event")
        if not isinstance(event.row, self._entity.model):
            raise RuleBroken(
                f"returned an event about {type(event.row).__name__} in place of "
                f"{self._entity.model.__name__}"
            )
        await session.flush()
        state = inspect(event.row)
        if not (state.persistent or state.deleted) or state.session is not session.sync_session:
            raise RuleBroken("returned a row that is not in the database: add it to the session")
        if state.persistent:  # whatever SQL or a trigger has made of it meanwhile
            await session.refresh(event.row)

    def _fault(self, raised: BaseException, connection: AsyncConnection) -> HandlerFault:
        by_result = isinstance(raised, RuleBroken | Unpublishable)
        broken = self._guard.broken or (raised if by_result else None)
        detail = str(broken) if broken else f"failed: {first_words(raised)}"
        return HandlerFault(
            f"the handler {self._name} {detail}",
            permanent=broken is not None,
            connection_lost=connection.invalidated and not isinstance(raised, TimeoutError),
        )
