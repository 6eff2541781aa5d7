"""The path `engine`: units of work in sessions on the pooled engine; no broker."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from worker.database.engine import make_engine, make_sessions
from worker.lab.link import Arrivals
from worker.lab.recorder import UNFINISHED, WorkRecorder
from worker.lab.target import Order
from worker.lab.transaction import Transaction

FINISH_SECONDS = 2
"""How long work that is in hand may still take once no more comes."""


class EngineTarget:
    """Begins each piece of work when it arrives, or as soon as one of the lanes is free."""

    sees_ends = True

    def __init__(self, order: Order) -> None:
        self._scenario = order.scenario
        self.engine = make_engine(order.database_settings, name=order.application_name)
        self._sessions = make_sessions(self.engine)
        self._transaction = Transaction(order.scenario, order.namespace)
        self._kept: list[AsyncSession] = []
        self._hands: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to wait for: the pool connects at first use, and that is a part of the test."""

    async def run(self, link: socket.socket, recorder: WorkRecorder) -> None:
        """Take work until the link ends, then give what is in hand a moment."""
        arrivals = Arrivals(link, answered=self._scenario.load.kind == "closed")
        try:
            if self._scenario.work.lanes is None:
                await self._at_once(arrivals, recorder)
            else:
                await self._in_lanes(arrivals, recorder, self._scenario.work.lanes)
        finally:
            arrivals.close()

    async def stop(self) -> None:
        """Close all connections, leaked ones too."""
        for task in self._hands:
            task.cancel()
        await asyncio.gather(*self._hands, return_exceptions=True)
        for session in self._kept:
            await session.close()
        await self.engine.dispose()

    async def _at_once(self, arrivals: Arrivals, recorder: WorkRecorder) -> None:
        slots = count()
        async for batch in arrivals.batches():
            for intended in batch:
                if len(self._hands) >= self._scenario.load.most_outstanding:
                    recorder.dropped(intended)
                    continue
                work = self._work([intended], next(slots), recorder, arrivals)
                task = asyncio.create_task(work)
                self._hands.add(task)
                task.add_done_callback(self._hands.discard)
        if self._hands:
            await asyncio.wait(self._hands, timeout=FINISH_SECONDS)
        await self._give_up()

    async def _in_lanes(self, arrivals: Arrivals, recorder: WorkRecorder, lanes: int) -> None:
        waiting: deque[int] = deque()
        ready = asyncio.Condition()
        ended = False

        async def lane(number: int) -> None:
            while True:
                async with ready:
                    await ready.wait_for(lambda: waiting or ended)
                    size = min(len(waiting), self._scenario.work.group_size)
                    group = [waiting.popleft() for _ in range(size)]
                if not group:
                    return
                await self._work(group, number, recorder, arrivals)

        self._hands = {asyncio.create_task(lane(number)) for number in range(lanes)}
        async for batch in arrivals.batches():
            room = self._scenario.load.most_outstanding - len(waiting)
            for intended in batch[room:]:
                recorder.dropped(intended)
            async with ready:
                waiting.extend(batch[:room])
                ready.notify(len(batch))
        ended = True
        async with ready:
            ready.notify_all()
        await asyncio.wait(self._hands, timeout=FINISH_SECONDS)
        for intended in waiting:
            recorder.started(intended)
            recorder.ended(intended, UNFINISHED)
        waiting.clear()
        await self._give_up()

    async def _work(
        self, group: Sequence[int], slot: int, recorder: WorkRecorder, arrivals: Arrivals
    ) -> None:
        """One transaction for a group, usually of one."""
        error: BaseException | str | None = None
        for intended in group:
            recorder.started(intended)
        session = self._sessions()
        leaked = False
        try:
            asked = monotonic()
            await session.connection()
            recorder.waited(group[0], slot, monotonic() - asked)
            leaked = await self._transaction.run(session, len(group))
        except asyncio.CancelledError:
            error = UNFINISHED
            raise
        except Exception as fault:
            error = fault
        finally:
            if leaked:
                self._kept.append(session)
            else:
                await session.close()
            for intended in group:
                recorder.ended(intended, error)
                arrivals.answer()

    async def _give_up(self) -> None:
        """End what has not ended by itself; it counts as unfinished."""
        for task in self._hands:
            task.cancel()
        await asyncio.gather(*self._hands, return_exceptions=True)
