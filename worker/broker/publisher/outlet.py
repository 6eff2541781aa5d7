"""One connection's channels for publishing: sends a batch once, and says what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel

from worker.broker.connection import ending_of, open_channel
from worker.broker.protocol.frame_writer import can_frame
from worker.broker.publisher.batch import Burst, BurstChannel, open_bursts
from worker.broker.publisher.single_calls import SingleCalls
from worker.core.messages import Publication, new_id

LEAST_PATIENCE = 0.1
"""Of the longest that confirms are waited for. A broker that is up confirms within milliseconds;
but RabbitMQ 3.10 may never confirm what it was sent while the leader of a stream moved to another
node."""
PATIENCE = 4
"""So many times as long as the broker has just taken."""


class Patience:
    """How long the broker may be silent: longer after it was slow, never above `most` seconds."""

    def __init__(self, most: float) -> None:
        self._most = most
        self.seconds = LEAST_PATIENCE * most

    def took(self, seconds: float) -> None:
        """The broker has taken that long to confirm."""
        self._set(PATIENCE * seconds)

    def double(self) -> None:
        """It may only be slow."""
        self._set(2 * self.seconds)

    def _set(self, seconds: float) -> None:
        self.seconds = min(max(seconds, LEAST_PATIENCE * self._most), self._most)


@dataclass
class BatchAttempt:
    """What became of a batch that was sent once."""

    faults: dict[int, BaseException] = field(default_factory=dict)
    """Of those that the broker refused, returned, or was silent about while it took others."""
    undecided: list[int] = field(default_factory=list)
    """From the first on that was not answered: what followed may not stay ahead of it."""
    end: BaseException | None = None
    """Why there are undecided ones."""


_prefix = new_id()
_attempt_ids = count()


class Outlet:
    """Publishes over one connection; `is_blocked` says whether the broker reads nothing now."""

    def __init__(
        self,
        channel: Channel,
        bursts: BurstChannel | None,
        patience: Patience,
        is_blocked: Callable[[], bool],
    ) -> None:
        self._singles = SingleCalls(channel)
        self._bursts = bursts
        self._patience = patience
        self._is_blocked = is_blocked

    @classmethod
    async def open(
        cls,
        connection: AbstractConnection,
        patience: Patience,
        is_blocked: Callable[[], bool] = lambda: False,
    ) -> Outlet:
        """The channels, on this connection. `write` must run for as long as they are used."""
        channel = await open_channel(connection)
        return cls(channel, await open_bursts(connection), patience, is_blocked)

    @property
    def channels(self) -> list[Channel]:
        """All of them; it is of no use once any of them has ended."""
        return [self._singles.channel, *([self._bursts.channel] if self._bursts else [])]

    @property
    def is_closed(self) -> bool:
        """Whether any of the channels has ended."""
        return any(channel.is_closed for channel in self.channels)

    async def write(self) -> None:
        """Write what is sent, for as long as the channels live."""
        if self._bursts is not None:
            await self._bursts.write()

    async def publish(self, publications: Sequence[Publication]) -> BatchAttempt:
        """Send all of them, in order, and wait until it is known what became of each."""
        bursts = self._bursts if all(map(can_frame, publications)) else None
        sender = bursts or self._singles
        ids = [f"{_prefix}-{next(_attempt_ids)}" for _ in publications]
        try:
            burst = sender.send(publications, ids)
        except Exception as error:
            return self._cut_off(BatchAttempt(undecided=list(range(len(ids))), end=error))
        try:
            heard = await self._is_heard_of(burst)
        finally:
            sender.forget(burst)
        attempt = BatchAttempt(dict(burst.faults))
        if heard:
            return attempt
        silent = burst.all_unanswered
        if burst.complete.done():
            attempt.end = burst.complete.exception()
        elif await self._took_others(sender, burst):
            attempt.faults |= dict.fromkeys(silent, TimeoutError("the broker never confirmed it"))
            return attempt
        else:
            attempt.end = TimeoutError("the broker did not confirm in time")
        attempt.undecided = [
            number for number in range(silent[0], len(ids)) if number not in attempt.faults
        ]
        return self._cut_off(attempt)

    async def _is_heard_of(self, burst: Burst) -> bool:
        """Wait until each is answered, but no longer than patience lasts; whether each was.

        While the broker blocks publishers it reads nothing: what was written waits there, and to
        write it again would only pile it up.
        """
        now = asyncio.get_running_loop().time
        asked = now()
        while not burst.complete.done():
            await asyncio.wait([burst.complete], timeout=self._patience.seconds)
            if not burst.complete.done() and not self._is_blocked():
                return False
        if burst.unanswered is not None:
            return False
        self._patience.took(now() - asked)
        return True

    async def _took_others(self, sender: BurstChannel | SingleCalls, burst: Burst) -> bool:
        """Whether the broker is well, and silent about these messages alone.

        It has answered for later ones; or, where there are no later ones, it answers when asked.
        """
        first = burst.first_tag + burst.all_unanswered[0]
        if sender.last_answered > first:
            return True
        self._patience.double()  # should it only be slow
        is_last = sender.last_tag < burst.first_tag + len(burst)
        return is_last and await self.answers()

    async def answers(self) -> bool:
        """Whether the broker, when asked, confirms what needs no queue."""
        return await self._singles.answers(self._patience.seconds)

    def _cut_off(self, attempt: BatchAttempt) -> BatchAttempt:
        """The same, with the reason that the broker gave, if it did."""
        told = next(filter(None, map(ending_of, self.channels)), None)
        attempt.end = told or attempt.end
        return attempt
