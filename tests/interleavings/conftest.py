"""How many schedules: the same few thousand each time, or with `WORKER_INTERLEAVINGS` other ones.

`make interleavings` sets that. With `WORKER_TESTS_HURRY`, as `make mutations` sets it, the first
few hundred: a mutation is noticed or not, and nobody reads which schedule shows it best.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

_GIVEN, _HURRY = os.environ.get("WORKER_INTERLEAVINGS"), os.environ.get("WORKER_TESTS_HURRY")
SCHEDULES = int(_GIVEN or (500 if _HURRY else 2_000))

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
