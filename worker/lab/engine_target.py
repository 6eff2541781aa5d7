"""The path `engine`: units of work in sessions on the pooled engine; no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.tasks import cancel_all
from worker.database.engine import make_engine, make_sessions
from worker.lab.link import LabLink
from worker.lab.recorder import UNFINISHED, WorkRecorder
from worker.lab.target import LabOrder
from worker.lab.transaction import LabTransaction

FINISH_SECONDS = 2
"""How long work that is in hand may still take once no more comes."""


class EngineTarget:
    """Begins each piece of work when it arrives, or as soon as one of the lanes is free."""

    sees_ends = True

    def __init__(self, order: LabOrder) -> None:
        self._load, self._work = order.scenario.load, order.scenario.work
        self.engine = make_engine(order.database_settings, name=order.application_name)
        self._sessions = make_sessions(self.engine)
        self._transaction = LabTransaction(order.scenario, order.namespace)
        self._leaked: list[AsyncSession] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: asyncio.Queue[int] = asyncio.Queue()

    async def start(self) -> None:
        """Nothing to wait for: the pool connects at first use, and that is a part of the test."""

    async def run(self, link: LabLink, recorder: WorkRecorder) -> None:
        """Take work until the link ends, then give what is in hand a moment."""
        self._recorder, self._link = recorder, link
        if self._work.lanes is None:
            slots = count()
            async for batch in link.batches():
                for intended in self._admitted(batch, len(self._tasks)):
                    self._begin(self._transact([intended], next(slots)))
            finished: asyncio.Future[Any] = asyncio.gather(*self._tasks)
        else:
            for number in range(self._work.lanes):
                self._begin(self._lane(number))
            async for batch in link.batches():
                for intended in self._admitted(batch, self._waiting.qsize()):
                    self._waiting.put_nowait(intended)
            finished = asyncio.ensure_future(self._waiting.join())
        with suppress(TimeoutError):
            await asyncio.wait_for(finished, FINISH_SECONDS)
        await cancel_all([*self._tasks])
        while not self._waiting.empty():
            intended = self._waiting.get_nowait()
            recorder.started(intended)
            recorder.ended(intended, UNFINISHED)

    async def stop(self) -> None:
        """Close all connections, leaked ones too."""
        await cancel_all([*self._tasks])
        for session in self._leaked:
            await session.close()
        await self.engine.dispose()

    def _admitted(self, batch: Sequence[int], outstanding: int) -> Sequence[int]:
        """Those that there is room for; what comes on top is dropped."""
        room = max(self._load.most_outstanding - outstanding, 0)
        for intended in batch[room:]:
            self._recorder.dropped(intended)
        return batch[:room]

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lane(self, number: int) -> None:
        while True:
            group = [await self._waiting.get()]
            while len(group) < self._work.group_size and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            await self._transact(group, number)
            for _ in group:
                self._waiting.task_done()

    async def _transact(self, group: Sequence[int], slot: int) -> None:
        """One transaction for a group, usually of one."""
        error: BaseException | str | None = None
        for intended in group:
            self._recorder.started(intended)
        session = self._sessions()
        leaked = False
        try:
            asked = monotonic()
            await session.connection()
            self._recorder.waited(group[0], slot, monotonic() - asked)
            leaked = await self._transaction.run(session, len(group))
        except asyncio.CancelledError:
            error = UNFINISHED
            raise
        except Exception as fault:
            error = fault
        finally:
            if leaked:
                self._leaked.append(session)
            else:
                await session.close()
            for intended in group:
                self._recorder.ended(intended, error)
            if self._load.kind == "closed":
                self._link.write(bytes(len(group)))  # its clients wait for their answers
