"""What answers queries, built from the settings."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from worker.broker.protocol.properties import expiration_of
from worker.codec.codec import Codec
from worker.core.registry import Registry
from worker.database.engine import make_query_engine
from worker.processing.queries.queries import Queries, Reply
from worker.processing.queries.reader import Reader
from worker.settings.settings import Settings

PREFETCH_SHARE = 8
"""Of what the broker hands out before the first is acknowledged, queries may take up one eighth:
the rest is for commands, however long queries take."""


def make_queries(
    settings: Settings, registry: Registry, codec: Codec, reply: Reply
) -> tuple[Queries, AsyncEngine]:
    """The queries and the engine that they use, which is to be disposed of."""
    name = f"{settings.namespace} queries"
    engine = make_query_engine(settings.database, max(1, settings.queries), name=name)
    queries = Queries(
        Reader(engine, registry),
        codec,
        reply,
        at_once=settings.queries,
        most_waiting=settings.prefetch // PREFETCH_SHARE,
        seconds=settings.database.statement_timeout_seconds,
        max_deliveries=settings.broker.delivery_limit // 2,
        patience=lambda delivery: expiration_of(delivery.properties),
    )
    return queries, engine
