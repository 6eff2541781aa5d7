"""A processor on a test's own engine, without the lanes and the broker around it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.fakes import is_up
from worker.codec.codec import Codec
from worker.core.backoff import Backoff
from worker.core.registry import Registry
from worker.database.engine import autocommit, make_sessions
from worker.processing.processor import Processor


def processor_on(engine: AsyncEngine, registry: Registry, codec: Codec) -> Processor:
    """One that tries once and takes its time, so that each outcome is the first attempt's."""
    return Processor(
        make_sessions(engine),
        registry,
        codec,
        max_attempts=1,
        backoff=Backoff(0.001, 0.001),
        max_deliveries=10,
        budget_seconds=60,
        is_up=is_up,
        autocommit=autocommit(engine),
    )
