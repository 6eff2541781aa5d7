"""A checkout: who holds a connection, since when, and what the time goes into."""

from __future__ import annotations

import contextlib
from pathlib import Path
from time import perf_counter
from types import CodeType, FrameType

import sqlalchemy
from greenlet import getcurrent
from sqlalchemy.pool import PoolProxiedConnection

HOLD = "worker.hold"
"""Key in a connection's `record_info`: its `Checkout` while it is checked out."""

Place = tuple[CodeType, int]
"""A piece of code, and the instruction in it."""


_NOT_THE_CALLER = (str(Path(sqlalchemy.__file__).parent), contextlib.__file__)


def calling_place() -> Place | None:
    """The code that asked for a connection, outside of SQLAlchemy.

    A checkout runs in a greenlet of its own; who asked stands on the stack of its parent. Only the
    place is kept, not the frame, which would keep alive whatever its variables hold.
    """
    driver = getcurrent().parent
    frame: FrameType | None = driver.gr_frame if driver is not None else None
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_CALLER):
        frame = frame.f_back
    return None if frame is None else (frame.f_code, frame.f_lasti)


def where(place: Place | None) -> str:
    """The place in words: the end of the file's path, the line and the function."""
    if place is None:
        return "an unknown place"
    code, instruction = place
    lines = [line for start, end, line in code.co_lines() if start <= instruction < end]
    file = "/".join(Path(code.co_filename).parts[-3:])
    return f"{file}:{lines[0] if lines else code.co_firstlineno} in {code.co_name}"


class Checkout:
    """One checkout, from the moment it is let in until its connection is back."""

    __slots__ = ("_last", "active", "gate", "idle", "outer", "place", "since", "task")

    def __init__(
        self, gate: object, task: int, place: Place | None, outer: Checkout | None
    ) -> None:
        self.gate, self.task, self.place, self.outer = gate, task, place, outer
        self.active = True
        self.since = perf_counter()
        self.idle = 0.0
        """Seconds that the open transaction has lain idle between its statements."""
        self._last = 0.0  # end of the last statement of an open transaction

    @property
    def in_transaction(self) -> bool:
        """Whether a statement has begun a transaction that has not ended."""
        return self._last > 0

    def resume(self, now: float) -> None:
        """The server is given something to do."""
        if self._last:
            self.idle += now - self._last

    def pause(self, now: float, *, in_transaction: bool) -> None:
        """It has answered."""
        self._last = now if in_transaction else 0.0


def hold_of(connection: PoolProxiedConnection) -> Checkout | None:
    """The hold of a connection that is checked out; none of one that is no longer the pool's."""
    info = connection.record_info
    return None if info is None else info.get(HOLD)
