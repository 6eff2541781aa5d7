"""A desk that carries out commands about entities of a test, without the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.rows.desk import Desk
from worker.database.engine import make_engine
from worker.settings.settings import DatabaseSettings


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    """An engine on this test's database."""
    engine = make_engine(DatabaseSettings.model_validate({"url": database}))
    yield engine
    await engine.dispose()


@pytest.fixture
def desk(engine: AsyncEngine) -> Desk:
    """A desk on it."""
    return Desk(engine)
