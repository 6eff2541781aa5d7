"""How many schedules: the same few hundred each time, or with `WORKER_INTERLEAVINGS` other ones.

`make interleavings` sets that. With `WORKER_TESTS_HURRY`, as `make mutations` sets it, none is
made smaller: a mutation is noticed or not, and nobody reads which schedule shows it best.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from dev.databases import fresh_database
from tests.support.interleavings.stores import Kinds, PostgreSQL, StandIn

_GIVEN, _HURRY = os.environ.get("WORKER_INTERLEAVINGS"), os.environ.get("WORKER_TESTS_HURRY")
SCHEDULES = int(_GIVEN or (500 if _HURRY else 400))

schedules = settings(
    max_examples=SCHEDULES,
    deadline=None,
    database=None,
    derandomize=not _GIVEN,
    phases=(Phase.explicit, Phase.generate, *(() if _HURRY else (Phase.shrink,))),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No logs: faults are meant, and their tracebacks take longer than the schedules."""
    config = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    structlog.configure(**config)


@pytest.fixture(scope="module")
async def shared_database(server_url: str, template_database: str) -> AsyncIterator[str]:
    """One for all tests of a module, which empty it."""
    name = f"{template_database}_conforms"
    async with fresh_database(server_url, name, template=template_database) as url:
        yield url


@pytest.fixture(params=[StandIn, PostgreSQL])
def kind(request: pytest.FixtureRequest) -> Kinds:
    """The stand-in, and what it stands for."""
    return cast(Kinds, request.param)
