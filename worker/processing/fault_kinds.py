"""What becomes of a fault: wait, try again, or give up. The only place that says.

FaultKind.OUTAGE      the database seems to be down: ask it; if it is, wait for it and count nothing
FaultKind.CONTENTION  others were in the way: try again after a while, uncounted, for a limited time
FaultKind.TRANSIENT   another attempt may succeed: try again after a while, at most `max_attempts`
FaultKind.PERMANENT   the same command would fail in the same way: give up at once
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from socket import gaierror
from typing import TypeGuard

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.database.errors import violation_of
from worker.database.failover import READ_ONLY
from worker.database.pool.pool import WHILE_CONNECTING, NestedCheckout
from worker.database.session_guard import RuleBroken
from worker.processing.custom_handler import HandlerFault
from worker.processing.outcomes import Unpublishable
from worker.processing.row_cache import NotWritten


class FaultKind(Enum):
    """How a fault is treated."""

    OUTAGE = "outage"
    CONTENTION = "contention"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


# PostgreSQL, appendix A "Error Codes"; a class is the first two characters of a code.
_OUTAGE_CLASSES = frozenset(
    {
        "08",  # connection exception
        "28",  # invalid authorization: passwords are being changed
        "3D",  # invalid catalog name: the database is being replaced
        "53",  # insufficient resources: too many connections, disk full, out of memory
        "57",  # operator intervention: shutdown, starting up (57014 below is not)
        "58",  # system error: I/O
    }
)
_UNDER_CHANGE = frozenset(
    {
        "42501",  # insufficient_privilege
        "55000",  # object_not_in_prerequisite_state: the database is closed to new connections
        "42P01",  # undefined_table
        "42703",  # undefined_column
    }
)
"""What a migration or a grant that is under way looks like; or a mistake of a handler's."""
_OUTAGES = _UNDER_CHANGE | {READ_ONLY}
_CONTENTION = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available: lock_timeout
    }
)
_TRANSIENT = frozenset(
    {
        "57014",  # query_canceled: statement_timeout
        "25P03",  # idle_in_transaction_session_timeout
    }
)
_PERMANENT_CLASSES = frozenset(
    {
        "22",  # data exception
        "23",  # integrity constraint violation that means nothing to the entity
    }
)


def classify(fault: BaseException) -> FaultKind:
    """The kind of a fault, by SQLSTATE and type.

    A connection that breaks looks like an outage even where only one backend was ended: whether the
    database is up is then asked, not guessed. What is not known to be permanent may pass.
    """
    if isinstance(fault, HandlerFault):
        return _classify_handler(fault)
    if isinstance(fault, DBAPIError):
        return _classify_database(fault)
    if isinstance(fault, ConnectionError | TimeoutError | gaierror | PoolTimeout):
        return FaultKind.OUTAGE
    # Asking twice is a mistake of the handler's, which it would make again.
    permanent = isinstance(fault, NestedCheckout | NotWritten | RuleBroken | Unpublishable)
    return FaultKind.PERMANENT if permanent else FaultKind.TRANSIENT


def _classify_database(fault: DBAPIError) -> FaultKind:
    code = _code(fault)
    if code in _TRANSIENT:
        return FaultKind.TRANSIENT
    is_lost = fault.connection_invalidated
    if not is_lost and (code[:2] in _PERMANENT_CLASSES or violation_of(fault) is not None):
        return FaultKind.PERMANENT
    if is_lost or code in _OUTAGES or code[:2] in _OUTAGE_CLASSES:
        return FaultKind.OUTAGE
    if code in _CONTENTION:
        return FaultKind.CONTENTION
    # Without a code asyncpg raises what it finds itself, such as a connection that died under it.
    return FaultKind.TRANSIENT if code else FaultKind.OUTAGE


def _classify_handler(fault: HandlerFault) -> FaultKind:
    if fault.permanent:
        return FaultKind.PERMANENT
    if fault.connection_lost:
        return FaultKind.OUTAGE
    if any(_code(cause) in _CONTENTION for cause in database_faults(fault)):
        return FaultKind.CONTENTION
    return classify(fault.__cause__) if fault.__cause__ is not None else FaultKind.TRANSIENT


def is_doubtful(fault: BaseException) -> bool:
    """Whether an outage may be the command's own doing.

    A connection that was open broke, or a table or right is missing that the database, asked, has.
    A server that says what ails it (disk full, read-only) is taken at its word.
    """
    if isinstance(fault, HandlerFault):
        return fault.connection_lost
    if is_of_connecting(fault):
        return False
    if isinstance(fault, DBAPIError):
        code = _code(fault)
        if code == READ_ONLY:  # such a connection is left, not broken
            return False
        broken = fault.connection_invalidated or code[:2] in ("", "08") or code.startswith("57P0")
        return broken or code in _UNDER_CHANGE
    return isinstance(fault, ConnectionResetError | BrokenPipeError | TimeoutError)


def is_of_connecting(fault: BaseException) -> bool:
    """Whether no connection could be had, which is no command's doing."""
    if isinstance(fault, HandlerFault):  # it had one
        return False
    return isinstance(fault, PoolTimeout) or any(
        WHILE_CONNECTING in getattr(each, "__notes__", ()) for each in _chain(fault)
    )


def is_of_the_database(fault: BaseException) -> bool:
    """Whether what looks like an outage came from the database, and not from a call of a user's
    code to somebody else."""
    if isinstance(fault, HandlerFault):
        return fault.connection_lost
    return isinstance(fault, DBAPIError) or is_doubtful(fault)


def is_proven(fault: BaseException) -> TypeGuard[HandlerFault]:
    """Whether it was the handler's own doing, and not what the database said to it."""
    return (
        isinstance(fault, HandlerFault) and not fault.connection_lost and not database_faults(fault)
    )


def database_faults(fault: BaseException) -> list[DBAPIError]:
    """What the database has said, among what has led to a fault."""
    return [each for each in _chain(fault) if isinstance(each, DBAPIError)]


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while fault is not None and id(fault) not in seen:
        seen.add(id(fault))
        yield fault
        fault = fault.__cause__ or fault.__context__ or getattr(fault, "orig", None)


def _code(fault: DBAPIError) -> str:
    return getattr(fault.orig, "sqlstate", None) or ""
