"""What the unit tests share: no servers, no clocks that matter, bounded random examples."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.in_process import InProcess
from tests.support.fakes import make_codec
from worker.codec.codec import Codec

settings.register_profile(
    "unit",
    max_examples=60,
    deadline=None,  # a busy machine is no fault of the code
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No logs: a traceback that nobody reads takes longer to draw than most tests."""
    config = structlog.get_config()
    nothing = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=nothing)
    yield
    structlog.configure(**config)


@pytest.fixture
def logging_restored(quiet: None) -> Iterator[None]:
    """For tests that set logging up as a worker does."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


@pytest.fixture
def codec() -> Codec:
    return make_codec()


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> InProcess:
    """`worker …` within the test, in a folder without `.env`."""
    monkeypatch.chdir(tmp_path)
    return InProcess(monkeypatch, capsys)
