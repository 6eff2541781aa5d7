"""Keeps to the server that takes writes: of several hosts the one that does."""

from __future__ import annotations

from typing import Any

from asyncpg.exceptions import TargetServerAttributeNotMatched
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.errors import first_line, sqlstate
from worker.database.tls import CannotConnect
from worker.settings.tls import mismatch

READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: a standby, or a primary that is to be one."""

_REFUSED_BY_ALL = ("28", "3D")
"""Classes of SQLSTATE: the account or the database is not right, on whichever of the hosts."""


def follow(engine: AsyncEngine) -> None:
    """Have the engine connect to the host that takes writes, and leave one that stops to.

    The host that was found last comes first, so an old primary that returns by mistake is not asked
    while the new one is well. Each host has the time of `connect_timeout_seconds` to itself: the
    driver would have one dead host use up the time of all.
    """
    event.listen(engine.sync_engine, "handle_error", _leave_read_only)
    dialect = engine.dialect
    _, found = dialect.create_connect_args(engine.url)
    if not isinstance(found.get("host"), list):
        return
    connect = dialect.connect
    hosts = list(zip(found["host"], found["port"], strict=True))

    def connect_to_primary(*args: Any, **options: Any) -> Any:
        faults: dict[str, Exception] = {}
        for host in tuple(hosts):
            # Last, until it has answered: should the caller give up, the next begins with another.
            hosts.append(hosts.pop(hosts.index(host)))
            one = {
                "target_session_attrs": "read-write",
                **options,
                "host": host[0],
                "port": host[1],
            }
            try:
                connection = connect(*args, **one)
            except (OSError, dialect.loaded_dbapi.Error) as error:
                faults[f"{host[0]}:{host[1]}"] = error
                continue
            hosts.insert(0, hosts.pop(hosts.index(host)))
            return connection
        raise _none_of(faults)

    dialect.connect = connect_to_primary  # type: ignore[method-assign]


def _none_of(faults: dict[str, Exception]) -> Exception:
    for fault in faults.values():
        if (sqlstate(fault) or "")[:2] in _REFUSED_BY_ALL or mismatch(fault):
            return fault
    told = "; ".join(f"{host}: {_reason(fault)}" for host, fault in faults.items())
    return CannotConnect(f"none of {len(faults)} hosts takes writes ({told})")


def _reason(fault: Exception) -> str:
    cause = fault.__cause__ or fault
    if isinstance(cause, TargetServerAttributeNotMatched):
        return "it is read-only, or a standby"
    return first_line(cause)


def _leave_read_only(context: ExceptionContext) -> None:
    """Drop the whole pool with the connection: all of them lead to that server."""
    if sqlstate(context.original_exception) == READ_ONLY:
        context.is_disconnect = True
