"""What every test of the command line begins with."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.commandline import CommandLine
from worker.testing.proxy import Proxy


@pytest.fixture
def bare() -> CommandLine:
    """`worker …` as a process that is not to reach any server."""
    return CommandLine(os.environ)


@pytest.fixture
def cli(environment: dict[str, str]) -> CommandLine:
    """`worker …` as a process, with the namespace and database of this test."""
    return CommandLine(environment)


@pytest.fixture
async def proxy(cli: CommandLine) -> AsyncIterator[Proxy]:
    """A way to the broker that can be cut; the command takes it."""
    url = cli.environment["WORKER_BROKER__URL"]
    async with Proxy.before(url) as proxy:
        cli.environment["WORKER_BROKER__URL"] = proxy.through(url)
        yield proxy
