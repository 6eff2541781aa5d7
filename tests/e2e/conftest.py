"""What every test of the command line begins with."""

from __future__ import annotations

import os

import pytest

from tests.e2e.commandline import CommandLine


@pytest.fixture
def bare() -> CommandLine:
    """`worker …` as a process that is not to reach any server."""
    return CommandLine(os.environ)


@pytest.fixture
def cli(environment: dict[str, str]) -> CommandLine:
    """`worker …` as a process, with the namespace and database of this test."""
    return CommandLine(environment)
