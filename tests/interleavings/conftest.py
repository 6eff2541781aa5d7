"""How many schedules: `WORKER_INTERLEAVINGS`, which `make interleavings` sets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

IN_THE_SUITE = 2_000
SCHEDULES = int(os.environ.get("WORKER_INTERLEAVINGS") or IN_THE_SUITE)
# A mutation is noticed or not; nobody reads which schedule is the shortest that shows it.
_PHASES = (Phase.explicit, Phase.generate) + (
    () if os.environ.get("WORKER_TESTS_HURRY") else (Phase.shrink,)
)

schedules = settings(
    max_examples=SCHEDULES,
    deadline=None,
    database=None,
    derandomize=SCHEDULES == IN_THE_SUITE,
    phases=_PHASES,
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
