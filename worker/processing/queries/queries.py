"""Queries on their way: beside the commands, a few at a time, each answered to its asker alone.

They share nothing with the lanes: connections of their own, a bounded number at work, a bounded
number that wait. A slow one holds up other queries at most. Nothing of one is kept, and nothing of
one is tried again once its deadline has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker.codec.codec import Codec
from worker.core.backoff import RECONNECT
from worker.core.errors import Refusal
from worker.core.messages import (
    Delivery,
    Disallowed,
    Envelope,
    Item,
    Problem,
    Query,
    Rejected,
    ResultEvent,
    utc_now,
)
from worker.database.errors import first_line, sqlstate
from worker.processing.fault_kinds import FaultKind, classify
from worker.processing.outcomes import problem_of
from worker.processing.queries.reader import Reader

log = structlog.get_logger(__name__)

GRACE_SECONDS = 1.0
"""How long after the deadline the server, which keeps it too, may take to say so."""
_CANCELED = "57014"  # query_canceled: by statement_timeout

Reply = Callable[[Envelope, ResultEvent], Awaitable[None]]
"""Returns when the broker has the answer, or when nobody waits for it any more."""


class Queries:
    """Answers queries, `at_once` at the same time; beyond `most_waiting` they are refused.

    `seconds` is the longest that one may take; `patience` tells of a message how long its asker
    waits, if it says so.
    """

    def __init__(
        self,
        reader: Reader,
        codec: Codec,
        reply: Reply,
        *,
        at_once: int,
        most_waiting: int,
        seconds: float,
        max_deliveries: int,
        patience: Callable[[Delivery], float | None],
    ) -> None:
        self._reader = reader
        self._codec = codec
        self._reply = reply
        self._slots = asyncio.Semaphore(at_once)
        self._room = at_once + most_waiting
        self._seconds = seconds
        self._max_deliveries = max_deliveries
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    def submit(self, item: Item) -> None:
        """Take a query, or what was refused in place of one, which has a `reply_to`."""
        task = asyncio.create_task(
            self._answer_in_turn(item) if len(self._tasks) < self._room else self._refuse(item)
        )
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def stop(self) -> None:
        """Begin no further query; `run` returns when those that have begun are answered."""
        self._stop.set()

    async def run(self) -> None:
        """Answer queries until stopped."""
        try:
            await self._stop.wait()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            for task in self._tasks:
                task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a query could not be answered", exc_info=fault)

    async def _answer_in_turn(self, item: Item) -> None:
        delivery = item.envelope.delivery
        told = self._patience(delivery)
        seconds = self._seconds if told is None else min(told, self._seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        async with self._slots:
            if self._stop.is_set() or delivery.source.closed:
                return  # the broker delivers it again
            delivery.source.begin(delivery.tag)
            await self._settle(item, await self._answer(item, deadline))

    async def _refuse(self, item: Item) -> None:
        envelope = item.envelope
        envelope.delivery.source.begin(envelope.delivery.tag)
        detail = f"{self._room:,} queries are waiting or under way here; ask again later"
        await self._settle(item, self._problem(envelope, "rejected", Problem("busy", detail)))

    async def _settle(self, item: Item, answer: ResultEvent) -> None:
        delivery = item.envelope.delivery
        await self._reply(item.envelope, answer)
        delivery.source.settle(delivery.tag)

    async def _answer(self, item: Item, deadline: float) -> ResultEvent:
        envelope = item.envelope
        if isinstance(item, Rejected | Disallowed):
            return self._problem(envelope, "rejected", item.problem)
        assert isinstance(item, Query)  # commands go to the lanes
        if envelope.delivery.delivery_count >= self._max_deliveries:
            return self._failed(envelope, "it was delivered too often, and never answered")
        try:
            async with asyncio.timeout_at(deadline + GRACE_SECONDS):
                return await self._read(item, deadline)
        except Refusal as refusal:
            return self._problem(envelope, "rejected", problem_of(refusal))
        except Exception as fault:
            if isinstance(fault, TimeoutError) or sqlstate(fault) == _CANCELED:
                return self._timed_out(envelope)
            log.exception("a query failed", type=envelope.type, id=envelope.id)
            return self._failed(envelope, "the service's log says why")

    async def _read(self, query: Query, deadline: float) -> ResultEvent:
        """The answer; waits for a database that is away, as long as the asker does."""
        now, attempt = asyncio.get_running_loop().time, 0
        while True:
            left = deadline - now()
            if left <= 0:
                raise TimeoutError
            try:
                seconds = left if left < 0.9 * self._seconds else None
                data = await self._reader.read(query, seconds=seconds)
            except Exception as fault:
                if isinstance(fault, Refusal) or classify(fault) is not FaultKind.OUTAGE:
                    raise
                attempt += 1
                log.warning("a query is tried again", reason=first_line(fault))
                await asyncio.sleep(min(RECONNECT.delay(attempt), max(0, deadline - now())))
            else:
                type_ = f"{query.envelope.type}.result"
                return self._codec.answer(query.envelope, type_, data, time=utc_now())

    def _timed_out(self, envelope: Envelope) -> ResultEvent:
        detail = (
            "the query took longer than its message's expiration, or than one may take here: "
            "ask for less, by fewer rows or a narrower filter"
        )
        return self._problem(envelope, "failed", Problem("timed_out", detail))

    def _failed(self, envelope: Envelope, why: str) -> ResultEvent:
        return self._problem(envelope, "failed", Problem("failed", f"The query failed; {why}."))

    def _problem(self, envelope: Envelope, suffix: str, problem: Problem) -> ResultEvent:
        return self._codec.problem_answer(envelope, suffix, problem, time=utc_now())
