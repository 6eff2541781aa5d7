"""A new version comes: the schema changes while the workers are replaced one by one."""

from __future__ import annotations

import signal

from dev.chaos.faults.fault import Blow, BrokenPromise, until
from dev.chaos.faults.workers import STOP_SECONDS
from dev.chaos.migrations import NotMigrated
from dev.chaos.schedule import Recipe


class RollingRestart(Blow):
    """One worker after the other is stopped and started; after the first the schema is migrated."""

    name = "rolling-restart"
    recipe = Recipe((0, 0))
    exit_codes = frozenset({0})

    async def begin(self) -> None:
        place = self.place
        first = self.planned.worker
        for number in range(len(place.workers)):
            worker = place.workers[(first + number) % len(place.workers)]
            pid = worker.pid
            worker.signal(pid, signal.SIGTERM)
            if not await worker.ended(pid, within=STOP_SECONDS):
                raise BrokenPromise(f"{worker.name} did not stop within {STOP_SECONDS} s")
            await until(lambda: worker.pid != pid, within=5, what="nobody started it again")  # noqa: B023
            if not await place.ready(worker, within=30):
                raise BrokenPromise(f"{worker.name} was not ready again within 30 s")
            if number == 0:
                await self._migrate()

    async def _migrate(self) -> None:
        try:
            await self.place.migrations.add_and_apply()
        except NotMigrated as error:
            raise BrokenPromise(str(error)) from error
