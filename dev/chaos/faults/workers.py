"""Processes that are killed, stopped, frozen or told the wrong time."""

from __future__ import annotations

import asyncio
import signal

from dev.chaos.faults.fault import Blow, BrokenPromise, Fault, until
from dev.chaos.fleet import KILLED
from dev.chaos.schedule import Recipe

STOP_SECONDS = 30
"""`WORKER_SHUTDOWN_SECONDS`, and as much again on a busy machine."""


class KillAtCut(Blow):
    """kill -9 at a named point of a command's way."""

    recipe = Recipe((0, 0), weight=2)
    exit_codes = frozenset({KILLED})
    cut: str

    async def begin(self) -> None:
        self.worker.control.arm(self.cut)
        try:
            await until(
                lambda: self.worker.control.was_hit(self.cut),
                within=8,
                what=f"{self.worker.name} did not come to the point {self.cut!r}",
            )
        finally:
            self.worker.control.disarm(self.cut)


class KillReceived(KillAtCut):
    name, cut = "kill-received", "received"


class KillInTransaction(KillAtCut):
    name, cut = "kill-in-transaction", "in-transaction"


class KillCommitted(KillAtCut):
    name, cut = "kill-committed", "committed"


class KillPublished(KillAtCut):
    name, cut = "kill-published", "published"


class KillAnywhere(Blow):
    """kill -9 of any process of a worker, its parent included, wherever it is."""

    name = "kill-anywhere"
    recipe = Recipe((0, 0), weight=2)
    exit_codes = frozenset({KILLED})

    async def begin(self) -> None:
        await self.place.publisher.burst(200)
        await asyncio.sleep(self.random.uniform(0, 0.3))
        self.worker.signal(self.random.choice(self.worker.pids()), signal.SIGKILL)


class KillAll(Blow):
    """kill -9 of all workers at once."""

    name = "kill-all"
    recipe = Recipe((0, 0))
    exit_codes = frozenset({KILLED})

    async def begin(self) -> None:
        for worker in self.place.workers:
            for pid in worker.pids():
                worker.signal(pid, signal.SIGKILL)


class Terminate(Blow):
    """SIGTERM while the window is full of slow commands and of quick ones behind them."""

    name = "sigterm-full-window"
    recipe = Recipe((0, 0), weight=2)
    exit_codes = frozenset({0})

    async def begin(self) -> None:
        await self.place.send_probes("dawdle", count=12)
        await self.place.publisher.burst(400)
        await asyncio.sleep(self.random.uniform(0.1, 0.6))
        pid = self.worker.pid
        self.worker.signal(pid, signal.SIGTERM)
        if not await self.worker.ended(pid, within=STOP_SECONDS):
            raise BrokenPromise(f"{self.worker.name} did not stop within {STOP_SECONDS} s")


class FreezeWorker(Fault):
    """SIGSTOP for longer than the heartbeat lasts, then SIGCONT."""

    name = "freeze-worker"
    recipe = Recipe((6, 8))

    async def begin(self) -> None:
        self.worker.freeze()

    async def end(self) -> None:
        self.worker.thaw()


class ClockJump(Fault):
    """The wall clock of a worker jumps, by up to two days, and back."""

    name = "clock-jump"
    recipe = Recipe((2, 4))

    async def begin(self) -> None:
        self.worker.control.turn_clock(self.random.choice([-172_800, -60, 3_600, 172_800]))

    async def end(self) -> None:
        self.worker.control.turn_clock(0)
