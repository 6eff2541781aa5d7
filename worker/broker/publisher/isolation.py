"""Finds the message for which the broker ends a channel or connection, as groups find a command.

A channel exception does not say which of the messages in flight it is about. They are sent again
over a connection of their own, where nobody else's are lost, in ever smaller batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Self

from worker.broker.connection import FAILURES, connect
from worker.broker.errors import CONNECTION_FORCED, code_of
from worker.broker.publisher.outlet import BatchAttempt, Outlet, Patience
from worker.core.errors import Unreachable, WorkerError
from worker.core.messages import Publication
from worker.core.tasks import cancel_all
from worker.settings.settings import BrokerSettings

MISSING_FOR_ALL = frozenset({403, 404})
"""Reply codes that may be about all messages alike: then to look on would be to find each."""
SEVERAL = 3
"""So many at fault in a row, and none taken: it is about all of them."""


class IsolationTrial:
    """A connection to try suspects on, opened anew where one of them has ended it."""

    def __init__(
        self,
        settings: BrokerSettings,
        name: str,
        patience: Patience,
        is_blocked: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._name = name
        self._patience = patience
        self._is_blocked = is_blocked
        self._outlet: Outlet | None = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._outlet = None
        await self._opened.aclose()

    async def publish(self, publications: Sequence[Publication]) -> BatchAttempt:
        """Send them; where no connection can be had, `end` is `Unreachable`."""
        try:
            outlet = self._outlet = self._outlet or await self._open()
        except (WorkerError, *FAILURES) as error:
            return BatchAttempt(
                undecided=list(range(len(publications))), end=Unreachable(str(error))
            )
        attempt = await outlet.publish(publications)
        if attempt.end is not None:
            await self.__aexit__()
        return attempt

    async def _open(self) -> Outlet:
        connection = await self._opened.enter_async_context(connect(self._settings, self._name))
        outlet = await Outlet.open(connection, self._patience, self._is_blocked)
        writing = asyncio.create_task(outlet.write())
        self._opened.push_async_callback(cancel_all, [writing])
        return outlet


def is_outage(reason: BaseException | None) -> bool:
    """Whether none of the messages in flight can be at fault."""
    return isinstance(reason, Unreachable | TimeoutError) or code_of(reason) == CONNECTION_FORCED


async def isolate(
    trial: IsolationTrial, publications: Sequence[Publication], suspects: Sequence[int]
) -> tuple[dict[int, BaseException], list[int]]:
    """The faults of those at fault, and the numbers of those that an outage left undecided.

    All others have been confirmed.
    """
    faults: dict[int, BaseException] = {}
    waiting = deque([list(suspects)])
    taken = 0
    while waiting:
        batch = waiting.popleft()
        attempt = await trial.publish([publications[number] for number in batch])
        faults |= {batch[place]: fault for place, fault in attempt.faults.items()}
        undecided = [batch[place] for place in attempt.undecided]
        taken += len(batch) - len(undecided) - len(attempt.faults)
        if attempt.end is None or not undecided:
            continue
        if is_outage(attempt.end):
            return faults, sorted([*undecided, *(number for each in waiting for number in each)])
        if len(undecided) > 1:
            half = len(undecided) // 2
            waiting.extendleft([undecided[half:], undecided[:half]])
            continue
        faults[undecided[0]] = attempt.end
        if not taken and len(faults) >= SEVERAL and code_of(attempt.end) in MISSING_FOR_ALL:
            rest = [number for each in waiting for number in each]
            return faults | dict.fromkeys(rest, attempt.end), []
    return faults, []
