"""A gate that lets so many in at a time, and the others in the order in which they asked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import perf_counter


class Gate:
    """A fair bound: whoever leaves hands the place to the one who has waited longest.

    A place is never free while somebody waits, so nobody can pass those who wait. It belongs to no
    event loop; a waiter is woken in its own.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._place_seconds, self._counted = 0.0, perf_counter()
        # Each waiter, with the time of its asking. Leaving the middle is as cheap as the head.
        self._waiters: OrderedDict[asyncio.Future[bool], float] = OrderedDict()

    @property
    def inside(self) -> int:
        """Places that are taken."""
        return self.places - self._free

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    @property
    def longest_wait_seconds(self) -> float:
        """How long the first in the queue has been waiting; 0 where nobody waits."""
        for asked in self._waiters.values():
            return perf_counter() - asked
        return 0.0

    @property
    def place_seconds(self) -> float:
        """For how long places have been taken so far, all added up: by the clock, so exact."""
        self._count()
        return self._place_seconds

    def enter(self) -> bool:
        """Take a place if one is free."""
        if self._free:
            self._count()
            self._free -= 1
            return True
        return False

    async def wait(self, seconds: float) -> bool:
        """Take a place when one's turn comes; false when that took too long.

        A place that was handed over in time counts, however late the busy loop comes round to it.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiters[turn] = perf_counter()
        timer = loop.call_later(seconds, self._give_up, turn)
        try:
            return await turn
        except BaseException:
            self._waiters.pop(turn, None)
            # The place came in the same breath as the cancellation: it goes to the next.
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Hand one's place over, or set it free."""
        while self._waiters:
            turn, _ = self._waiters.popitem(last=False)
            loop = turn.get_loop()
            if turn.done() or loop.is_closed():
                continue
            if asyncio._get_running_loop() is loop:
                turn.set_result(True)
            else:  # the garbage collector returns a connection, in whatever thread it runs
                loop.call_soon_threadsafe(self._hand_over, turn)
            return  # as many are inside as before
        self._count()
        self._free += 1

    def _hand_over(self, turn: asyncio.Future[bool]) -> None:
        if turn.done():
            self.leave()
        else:
            turn.set_result(True)

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self._waiters.pop(turn, None)
            turn.set_result(False)

    def _count(self) -> None:
        now = perf_counter()
        self._place_seconds += self.inside * (now - self._counted)
        self._counted = now
