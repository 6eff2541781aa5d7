"""The async engine and its pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from worker.database.failover import follow
from worker.database.pool.pool import FairPool, pool_of
from worker.database.pool.stats import attach
from worker.database.session_guard import GuardedSession
from worker.database.tls import secure
from worker.settings.settings import DatabaseSettings

Sessions = async_sessionmaker[AsyncSession]


_BY_KEY = {"enable_seqscan": "off", "jit": "off"}
"""The worker reads by key, always. A statement that was planned while its table was still small
would read all of it for every group, long after it has grown: until the next ANALYZE. (Where there
is no index PostgreSQL still reads the table, at a price that must not make it compile the plan.)"""


def make_engine(settings: DatabaseSettings, *, name: str = "worker") -> AsyncEngine:
    """An engine with a fair, measured pool as the settings say; connects at first use.

    `name` is what the server calls the connections (`application_name`), and the pool's own name.
    """
    engine = _engine(settings, name, _BY_KEY)
    follow(engine)
    return engine


def make_query_engine(settings: DatabaseSettings, connections: int, *, name: str) -> AsyncEngine:
    """An engine for queries: so many connections, each transaction READ ONLY.

    To the replica, if there is one. The server plans as it likes: what a filter needs may be the
    whole table.
    """
    url = settings.replica_url or settings.url
    own = settings.model_copy(update={"url": url, "pool_size": connections, "max_overflow": 0})
    engine = _engine(own, name, {})
    if settings.replica_url is None:
        follow(engine)
    return engine.execution_options(postgresql_readonly=True)


def _engine(settings: DatabaseSettings, name: str, plans: Mapping[str, str]) -> AsyncEngine:
    engine = create_async_engine(
        make_url(settings.url.get_secret_value()).difference_update_query(("ssl", "sslmode")),
        poolclass=FairPool,
        pool_logging_name=name,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        hide_parameters=True,  # what users send does not reach the log
        pool_recycle=settings.pool_recycle_seconds,
        connect_args={
            "timeout": settings.connect_timeout_seconds,
            # Longer than any statement may run: only a server that answers nothing runs into it.
            "command_timeout": settings.statement_timeout_seconds + 5,
            **(_pooled(name) if settings.transaction_pooler else _direct(settings, name, plans)),
        },
    )
    attach(pool_of(engine).meter, engine)
    secure(engine, settings)
    return engine


def _direct(settings: DatabaseSettings, name: str, plans: Mapping[str, str]) -> dict[str, Any]:
    """What a session of one's own is told: kept by the server, for a client that may be gone."""
    milliseconds = {
        "statement_timeout": settings.statement_timeout_seconds,
        "lock_timeout": settings.lock_timeout_seconds,
        "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout_seconds,
    }
    limits = {key: str(round(value * 1000)) for key, value in milliseconds.items()}
    return {"server_settings": {"application_name": name, **limits, **plans}}


def _pooled(name: str) -> dict[str, Any]:
    """Behind a pooler in transaction mode the next transaction may run in another session.

    So a statement lives no longer than its transaction: it is prepared without a name, which the
    next one takes over. (The recipe of SQLAlchemy's asyncpg dialect gives each a name of its own;
    those would stay in the sessions for ever.) And PgBouncer refuses settings that it does not know
    how to restore.
    """
    return {
        "server_settings": {"application_name": name},
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": str,
    }


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Sessions whose rows stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False, sync_session_class=GuardedSession)


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """The same engine and pool, but each statement is a transaction of its own."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")
