"""A loop with simulated time, in which a sequence of bytes decides what happens outside, and when.

asyncio itself has no choices: it runs what is ready in order. What differs from run to run is when
answers arrive, links break and timers are due. So the loop asks, each time it looks for news from
outside, what is to come next; code between two awaits is never cut, and nothing is reordered that
asyncio would not reorder. Bytes that are used up mean: no more faults, everything in order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

Move = Callable[[], object]
"""Something outside that can happen now."""

MAX_STEPS = 20_000


class Stuck(Exception):
    """Nothing can happen any more, or nothing ever ends."""


class Choices:
    """Numbers out of bytes; 0, the most ordinary choice, when these are used up."""

    def __init__(self, given: bytes) -> None:
        self._given = given
        self._used = 0

    def below(self, number: int) -> int:
        """A number from 0 to below `number`, at most 256."""
        if self._used >= len(self._given):
            return 0
        self._used += 1
        return self._given[self._used - 1] % number

    @property
    def used_up(self) -> bool:
        """Whether all that follows is ordinary."""
        return self._used >= len(self._given)


class World:
    """All that is outside of the processes: it moves when and as the choices say.

    `sources` tell which moves there are now; `faults` what can go wrong, of which at most `bound`
    do, each time with a chance of `rate` in 256.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.sources: list[Callable[[], Iterator[Move]]] = []
        self.faults: Sequence[Move] = ()
        self.fault_rate = 0
        self.faults_left = 0
        self.is_over = False
        """Whether what is left to do is to end the tasks."""
        self.steps = 0
        self.story: list[str] = []
        self.happened: Counter[str] = Counter()
        self.loop = ScheduledLoop(self)

    def tell(self, kind: str, sentence: str = "") -> None:
        """Note what happened: its kind to be counted, the rest for whoever reads a failure."""
        self.happened[kind] += 1
        self.story.append(f"{self.loop.time():8.2f}  {kind} {sentence}".rstrip())

    def step(self, *, ready: bool, timers: bool) -> bool:
        """Let something happen, or nothing; return whether time is to stand still."""
        self.steps += 1
        if self.steps > MAX_STEPS and not self.is_over:
            raise Stuck(f"no end after {MAX_STEPS} steps")
        moves = [move for source in self.sources for move in source()]
        if not moves:
            if not ready and not timers:
                raise Stuck("nothing is under way, and no timer is set")
            return ready
        choice = self.choices.below(256)
        if choice >= 256 - self.fault_rate and self.faults and self.faults_left:
            self.faults_left -= 1
            self.faults[self.choices.below(len(self.faults))]()
            return True
        if ready and choice < 128:
            return True
        # Where nothing is ready, time may pass although something is under way.
        number = choice % (len(moves) + (timers and not ready))
        if number == len(moves):
            return False
        moves[number]()
        return True


class ScheduledLoop(asyncio.BaseEventLoop):
    """asyncio's own loop with the world in place of the sockets."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._now = 0.0
        self._selector = cast(selectors.BaseSelector, self)

    def time(self) -> float:
        """Simulated seconds; they pass while nothing happens."""
        return self._now

    def select(self, timeout: float | None = None) -> list[Any]:
        """Called by asyncio before each round of what is ready; `timeout` is 0 if anything is."""
        if not self._world.step(ready=timeout == 0, timers=timeout is not None):
            self._now += timeout or 0
        return []

    def _process_events(self, event_list: object) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads."""
