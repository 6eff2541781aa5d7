"""What every test of the command line begins with."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url

from tests.chaos.proxy import Proxy
from tests.e2e.commandline import CommandLine


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
    url = make_url(cli.environment["WORKER_BROKER__URL"])
    async with Proxy(url.host or "127.0.0.1", url.port or 5672) as proxy:
        url = url.set(host="127.0.0.1", port=proxy.port)
        cli.environment["WORKER_BROKER__URL"] = url.render_as_string(hide_password=False)
        yield proxy
