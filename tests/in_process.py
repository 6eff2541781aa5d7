"""The command line without a process: for what needs no server, or none that answers."""

from __future__ import annotations

import functools
import logging
import os
import sys

import pytest
import structlog
import typer

from tests.support.commandline import Result
from worker.cli import exit_code

NO_SERVERS = {
    "WORKER_BROKER__URL": "amqp://guest:guest@127.0.0.1:1/",
    "WORKER_DATABASE__URL": "postgresql+asyncpg://worker@127.0.0.1:1/worker",
}
"""What tries to reach one of them ends with 4."""

_tree_of = functools.cache(typer.main.get_command)


class InProcess:
    """Runs `worker …` within the test: the same exit codes and outputs, in a hundredth of the time.

    `terminal` has it see a terminal of so many columns at stdin, stdout and stderr.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(
        self, *arguments: str, code: int = 0, terminal: int | None = None, **variables: str
    ) -> Result:
        """Run it to its end, which must be with that exit code."""
        logger, config = logging.getLogger(), structlog.get_config()
        handlers, level = logger.handlers[:], logger.level
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["worker", *arguments])
            # To build it anew takes longer than most of what is run.
            patch.setattr(typer.main, "get_command", _tree_of)
            for name in [name for name in os.environ if name.startswith("WORKER_")]:
                patch.delenv(name)
            for name, value in (NO_SERVERS | variables).items():
                patch.setenv(name, value)
            if terminal is not None:
                see_terminal(patch, terminal)
            try:
                ended_with = exit_code()
            finally:
                logger.handlers[:] = handlers
                logger.setLevel(level)
                structlog.configure(**config)
        told = self._capsys.readouterr()
        assert ended_with == code, f"{arguments} ended with {ended_with}: {told.err}"
        return Result(ended_with, told.out, told.err)


def see_terminal(patch: pytest.MonkeyPatch, columns: int) -> None:
    """Have this process see a terminal, which has no colours."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        patch.setattr(stream, "isatty", lambda: True, raising=False)
    patch.setenv("COLUMNS", str(columns))
    patch.setenv("NO_COLOR", "1")
