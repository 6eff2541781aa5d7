"""One run: fault after fault by the schedule, each with the time of recovery after its end."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import SubprocessError

import asyncpg

from dev.chaos.faults import FAULTS, BrokenPromise, Fault, NotInjected
from dev.chaos.place import Place
from dev.chaos.schedule import Planned
from dev.servers import ServerError
from worker.testing.broker_errors import BROKER_AWAY
from worker.testing.journal import FaultPeriod as BookFault
from worker.testing.journal import JournalWriter

MOST_SECONDS = 60
"""How long a recovery is waited for before the run goes on without it."""
MENDING_ATTEMPTS = 5
NOTICING_SECONDS = 0.2
"""Until a parent says of a process that it is gone."""
SETTLE_SECONDS = 120
"""How long, at the end, the last answers may take."""

_UNFORESEEN = (
    ServerError,
    *BROKER_AWAY,
    TimeoutError,
    SubprocessError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
"""What a busy machine may do to the breaking itself."""


@dataclass(frozen=True)
class Happened:
    """A fault that came about, or did not (`missed` says why)."""

    number: int
    name: str
    worker: str
    began: float
    ended: float
    recovered_seconds: float | None
    """Until all living workers consumed again, and a command was answered."""
    full_strength_seconds: float | None
    """Until those that a parent had started again after a wait did so, too."""
    missed: str | None = None
    broken: str | None = None
    """Which promise the worker broke, where the fault itself has shown it."""


class Run:
    """Breaks a place by a schedule, and writes down what happened."""

    def __init__(self, place: Place, plan: Sequence[Planned], minutes: float) -> None:
        self.happened: list[Happened] = []
        self._place = place
        self._plan = plan
        self._seconds = minutes * 60
        self._pen = JournalWriter(place.folder / "book", "faults")
        self._timeline = (place.folder / "timeline.jsonl").open("w", buffering=1)

    async def go(self) -> None:
        """The whole schedule; at least as long as was asked for."""
        began = time.monotonic()
        if await self._recovery() is None:
            raise RuntimeError("the workers did not answer before anything was broken")
        for planned in self._plan:
            await asyncio.sleep(planned.pause_seconds)
            await self._suffer(planned)
        await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
        await self._place.publisher.stop()
        await self._settle()

    async def _suffer(self, planned: Planned) -> None:
        fault = FAULTS[planned.name](self._place, planned)
        for worker in self._place.workers:
            worker.expected = fault.exit_codes
        began, on_the_clock = time.time(), time.monotonic()
        missed = broken = None
        try:
            missed = await self._inject(fault, planned)
        except BrokenPromise as promise:
            broken = str(promise)
        ended = time.time()
        self._pen.write(BookFault(planned.name, on_the_clock, time.monotonic()))
        recovered = await self._recovery()
        full = await self._full_strength(ended)
        found = Happened(
            planned.number,
            planned.name,
            fault.worker.name,
            began,
            ended,
            recovered,
            full,
            missed,
            broken,
        )
        self.happened.append(found)
        self._timeline.write(json.dumps(asdict(found)) + "\n")
        say(_in_words(found, self._place.book.in_words()))

    async def _inject(self, fault: Fault, planned: Planned) -> str | None:
        """Why it did not come about, if it did not."""
        missed = None
        try:
            await fault.begin()
            await asyncio.sleep(planned.hold_seconds)
        except NotInjected as reason:
            missed = str(reason)
        except _UNFORESEEN as error:
            missed = repr(error)
        finally:
            await self._mend(fault)
        return missed

    async def _mend(self, fault: Fault) -> None:
        for _ in range(MENDING_ATTEMPTS - 1):
            try:
                await fault.end()
            except _UNFORESEEN as error:
                say(f"     {fault.name} is not mended yet: {error!r}")
                await asyncio.sleep(1)
            else:
                return
        await fault.end()

    async def _recovery(self) -> float | None:
        """Seconds until every living worker is ready and consumes, and a command is answered."""
        began = time.monotonic()
        while time.monotonic() - began < MOST_SECONDS:
            if await self._place.all_ready():
                if await self._place.answers_a_probe():
                    return round(time.monotonic() - began, 2)
            else:
                await asyncio.sleep(0.05)
        return None

    async def _full_strength(self, since: float) -> float | None:
        """Seconds until all processes consume, so that no fault is blamed for the one before."""
        await asyncio.sleep(NOTICING_SECONDS)
        while time.time() - since < MOST_SECONDS:
            if await self._place.all_ready(complete=True):
                return round(time.time() - since, 2)
            await asyncio.sleep(0.1)
        return None

    async def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._place.book.unanswered() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def _in_words(found: Happened, counts: str) -> str:
    recovered = found.recovered_seconds
    how = (
        f"missed: {found.missed}"
        if found.missed
        else f"BROKEN: {found.broken}"
        if found.broken
        else f"well again after {recovered:.1f} s"
        if recovered is not None
        else "NOT WELL AGAIN"
    )
    lasted = found.ended - found.began
    return (
        f"{found.number:4d} {found.name:26s} {found.worker:9s} {lasted:5.1f} s, {how}   [{counts}]"
    )


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def write_plan(folder: Path, plan: Sequence[Planned]) -> None:
    """Keep the schedule with the run's records."""
    (folder / "schedule.json").write_text(json.dumps([asdict(it) for it in plan], indent=1))
