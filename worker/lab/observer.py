"""PostgreSQL and the lab's processes, seen from outside the process under test."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import psutil
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.lab.results import Activity, Server
from worker.lab.sandbox import Sandbox

LOOK_SECONDS = 0.1

_ACTIVITY = text(
    "SELECT state, wait_event_type, wait_event, count(*) FROM pg_stat_activity"
    " WHERE application_name = :name GROUP BY 1, 2, 3"
)
_TOTALS = text(
    "SELECT xact_commit, xact_rollback, deadlocks FROM pg_stat_database WHERE datname = :database"
)
_PID = text("SELECT pg_backend_pid()")


@dataclass
class _Seen:
    total: int = 0
    most: int = 0


@dataclass
class _Looks:
    count: int = 0
    sessions: dict[tuple[str, str | None, str | None], _Seen] = field(
        default_factory=lambda: defaultdict(_Seen)
    )


class ServerObserver:
    """Looks at `pg_stat_activity` ten times a second, through a connection of its own.

    The server may be restarted meanwhile: it then looks again as soon as it can.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._engine, self._room = sandbox.outside, sandbox.room
        self._database, self._name = sandbox.database, sandbox.name
        self._looks = _Looks()
        self._before: tuple[int, int, int] | None = None

    async def begin(self) -> None:
        """Note what the server has counted so far."""
        async with self._engine.connect() as connection:
            self._before = await self._totals(connection)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with self._engine.connect() as connection:
                    while True:
                        await self._look(connection)
                        # No transaction may stay open: its snapshot would keep dead rows alive.
                        await connection.rollback()
                        await asyncio.sleep(LOOK_SECONDS)
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(LOOK_SECONDS)

    async def end(self) -> Server:
        """What was seen since `begin`."""
        after = None
        try:
            async with self._engine.connect() as connection:
                after = await self._totals(connection)
        except (SQLAlchemyError, OSError):
            pass  # it is away; what was seen before stays true
        looks = self._looks
        grown: list[int | None] = [None, None, None]
        if after is not None and self._before is not None:
            # Counted anew after a crash of the server: then there is nothing to compare.
            grown = [
                now - then if now >= then else None
                for now, then in zip(after, self._before, strict=True)
            ]
        activity = [
            Activity(
                state=state,
                wait_event_type=kind,
                wait_event=event,
                sessions_mean=seen.total / looks.count,
                sessions_max=seen.most,
            )
            for (state, kind, event), seen in looks.sessions.items()
        ]
        return Server(
            activity=tuple(sorted(activity, key=lambda each: -each.sessions_mean)),
            lock_wait_sessions_mean=sum(
                each.sessions_mean for each in activity if each.wait_event_type == "Lock"
            ),
            commits=grown[0],
            rollbacks=grown[1],
            deadlocks=grown[2],
            max_connections=self._room.most,
            reserved_connections=self._room.reserved,
            other_connections=self._room.others,
        )

    async def _look(self, connection: AsyncConnection) -> None:
        rows = (await connection.execute(_ACTIVITY, {"name": self._name})).all()
        self._looks.count += 1
        for state, kind, event, count in rows:
            seen = self._looks.sessions[state or "starting", kind, event]
            seen.total += count
            seen.most = max(seen.most, count)

    async def _totals(self, connection: AsyncConnection) -> tuple[int, int, int] | None:
        row = (await connection.execute(_TOTALS, {"database": self._database})).one_or_none()
        return None if row is None else (row[0], row[1], row[2])


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
