"""The pytest plug-in: the fixture `chaos`. It costs nothing until a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from worker.testing.chaos import Chaos


@pytest.fixture
def worker_environment() -> dict[str, str]:
    """Settings of the worker under test, as environment variables: override it with yours.

    By default those of the shell: `WORKER_BROKER__URL`, `WORKER_DATABASE__URL`, `WORKER_ENTITIES`.
    """
    return {name: value for name, value in os.environ.items() if name.startswith("WORKER_")}


@pytest.fixture
def worker_tables() -> dict[str, str]:
    """The table of each entity that the verdict looks at: override it with yours."""
    return {"user": "users", "order": "orders"}


@pytest.fixture
def chaos(
    worker_environment: dict[str, str], worker_tables: dict[str, str], tmp_path: Path
) -> Iterator[Chaos]:
    """A worker to break, and the verdict on it; see `worker.testing.chaos.Chaos`."""
    for name in ("WORKER_BROKER__URL", "WORKER_DATABASE__URL"):
        if name not in worker_environment:
            pytest.fail(f"{name} is not set: set it, or override the fixture worker_environment")
    try:
        from worker.testing.chaos import Chaos
    except ModuleNotFoundError as error:
        if error.name != "pika":
            raise
        pytest.fail("the fixture chaos needs pika: pip install 'command-worker[testing]'")
    with Chaos(worker_environment, tmp_path, tables=worker_tables) as chaos:
        yield chaos
