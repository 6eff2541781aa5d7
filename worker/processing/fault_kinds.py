"""What becomes of a fault: wait for the database, try again, or give up. The only place that says.

Kind.OUTAGE     the database is away: wait until it is back, count nothing
Kind.TRANSIENT  another attempt may succeed: try again after a while, at most `max_attempts`
Kind.PERMANENT  the same command would fail in the same way: give up at once
"""

from __future__ import annotations

from enum import Enum
from socket import gaierror

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.database.failover import READ_ONLY
from worker.database.pool.pool import NestedCheckout


class Kind(Enum):
    """How a fault is treated."""

    OUTAGE = "outage"
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


def classify(fault: BaseException) -> Kind:
    """The kind of a fault, by SQLSTATE and type.

    A connection that breaks is an outage even where only one backend was ended: whether the
    database is well is then asked, not guessed. What is not known to be permanent may pass.
    """
    if isinstance(fault, DBAPIError):
        code = getattr(fault.orig, "sqlstate", None) or ""
        if code in _TRANSIENT:
            return Kind.TRANSIENT
        if fault.connection_invalidated or code in _OUTAGES or code[:2] in _OUTAGE_CLASSES:
            return Kind.OUTAGE
        if isinstance(fault, IntegrityError) or code[:2] in _PERMANENT_CLASSES:
            return Kind.PERMANENT
        # asyncpg raises its interface errors, without a code, where a connection died under it.
        return Kind.TRANSIENT if code else Kind.OUTAGE
    if isinstance(fault, ConnectionError | TimeoutError | gaierror | PoolTimeout):
        return Kind.OUTAGE
    # Asking twice is a mistake of the handler's, which it would make again.
    return Kind.PERMANENT if isinstance(fault, NestedCheckout) else Kind.TRANSIENT


def is_doubtful(fault: BaseException) -> bool:
    """Whether an outage may be the command's own doing.

    A connection that was open broke, or a table or right is missing that the database, asked, has.
    A server that says what ails it (disk full, read-only) is taken at its word.
    """
    if isinstance(fault, DBAPIError):
        code = getattr(fault.orig, "sqlstate", None) or ""
        if code == READ_ONLY:  # such a connection is left, not broken
            return False
        broken = fault.connection_invalidated or code[:2] in ("", "08") or code.startswith("57P0")
        return broken or code in _UNDER_CHANGE
    return isinstance(fault, ConnectionResetError | BrokenPipeError | TimeoutError)
