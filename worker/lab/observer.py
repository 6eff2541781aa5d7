"""PostgreSQL and the lab's processes, seen from outside the process under test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import psutil
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.lab.measured import Activity, Server
from worker.lab.sandbox import Sandbox

LOOK_SECONDS = 0.1

_ACTIVITY = text(
    "SELECT coalesce(state, 'starting'), wait_event_type, wait_event, count(*)"
    " FROM pg_stat_activity WHERE application_name = :name GROUP BY 1, 2, 3"
)
_TOTALS = text(
    "SELECT xact_commit, xact_rollback, deadlocks FROM pg_stat_database WHERE datname = :database"
)
_PID = text("SELECT pg_backend_pid()")


class ServerObserver:
    """Looks at `pg_stat_activity` ten times a second, through a connection of its own.

    The server may be restarted meanwhile: it then looks again as soon as it can.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._looks: list[dict[tuple[str, str | None, str | None], int]] = []
        self._before: list[int] | None = None

    async def begin(self) -> None:
        """Note what the server has counted so far."""
        self._before = await self._totals()

    async def watch(self) -> None:
        """Look until cancelled."""
        name = {"name": self._sandbox.name}
        while True:
            try:
                async with self._sandbox.outside.connect() as connection:
                    while True:
                        rows = (await connection.execute(_ACTIVITY, name)).all()
                        self._looks.append({(row[0], row[1], row[2]): row[3] for row in rows})
                        # No transaction may stay open: its snapshot would keep dead rows alive.
                        await connection.rollback()
                        await asyncio.sleep(LOOK_SECONDS)
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(LOOK_SECONDS)

    async def end(self) -> Server:
        """What was seen since `begin`."""
        activity = self._activity()
        locks = [each.sessions_mean for each in activity if each.wait_event_type == "Lock"]
        commits, rollbacks, deadlocks = await self._grown()
        room = self._sandbox.room
        return Server(
            activity=tuple(activity),
            lock_wait_sessions_mean=sum(locks),
            commits=commits,
            rollbacks=rollbacks,
            deadlocks=deadlocks,
            max_connections=room.most,
            reserved_connections=room.reserved,
            other_connections=room.others,
        )

    def _activity(self) -> list[Activity]:
        found = []
        for key in {key for look in self._looks for key in look}:
            numbers = [look.get(key, 0) for look in self._looks]
            found.append(
                Activity(
                    state=key[0],
                    wait_event_type=key[1],
                    wait_event=key[2],
                    sessions_mean=sum(numbers) / len(numbers),
                    sessions_max=max(numbers),
                )
            )
        return sorted(found, key=lambda each: -each.sessions_mean)

    async def _grown(self) -> list[int | None]:
        """How far the counters have come; `None` if the server is away or counts anew."""
        after = None
        with suppress(SQLAlchemyError, OSError):  # what was seen before stays true
            after = await self._totals()
        if after is None or self._before is None:
            return [None, None, None]
        pairs = zip(after, self._before, strict=True)
        return [now - then if now >= then else None for now, then in pairs]

    async def _totals(self) -> list[int] | None:
        async with self._sandbox.outside.connect() as connection:
            found = await connection.execute(_TOTALS, {"database": self._sandbox.database})
            return [number for row in found for number in row] or None


class CpuMeter:
    """CPU used in a second, since it was made."""

    def __init__(self, used: Callable[[], float | None]) -> None:
        self._used = used
        self._then = (monotonic(), used())

    def cores(self) -> float | None:
        """`None` where that cannot be known."""
        now, used = monotonic(), self._used()
        then, used_then = self._then
        if used is None or used_then is None:
            return None
        return max(used - used_then, 0) / max(now - then, 1e-9)


def process_seconds(pid: int | None, *, children: bool = False) -> Callable[[], float | None]:
    """CPU seconds of a process, its past and present children included if asked for."""
    process = None if pid is None else psutil.Process(pid)

    def used() -> float | None:
        if process is None:
            return None
        try:
            total = _seconds(process.cpu_times(), children=children)
            for child in process.children(recursive=True) if children else ():
                total += _seconds(child.cpu_times(), children=True)
        except psutil.Error:
            return None
        return total

    return used


def host_seconds() -> float:
    """CPU seconds of all programs of the machine, and those that a host kept from it."""
    times = psutil.cpu_times()._asdict()
    busy = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(times.get(name, 0) for name in busy))


def _seconds(times: Any, *, children: bool) -> float:
    """A parent is charged with what its ended children used, so none of it is ever lost."""
    own: float = times.user + times.system
    if not children:
        return own
    return own + float(getattr(times, "children_user", 0) + getattr(times, "children_system", 0))


async def postmaster_pid(connection: AsyncConnection) -> int | None:
    """The process of which all of PostgreSQL's come, if it runs on this machine."""
    pid = await connection.scalar(_PID)
    try:
        backend = psutil.Process(pid)
        parent = backend.parent()
    except psutil.Error:
        return None
    # On another machine the number may be anybody's: only a PostgreSQL will do.
    if parent is None or "postgres" not in backend.name() or "postgres" not in parent.name():
        return None
    return int(parent.pid)
