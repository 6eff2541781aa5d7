"""A child that fails says so in one line, and none is left behind."""

from __future__ import annotations

import socket

import psutil
import pytest

from worker.core.errors import Misconfigured, Unreachable
from worker.lab.processes import LabFailed, LabProcess, child


async def test_a_child_that_cannot_start_is_told_with_its_last_words() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        async with child("worker.lab.no_such_module", theirs) as process:
            with pytest.raises(LabFailed, match=r"ended unexpectedly: .*no_such_module"):
                await process.receive()
    assert theirs.fileno() == -1  # or the other side would never see the link end
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("module", ["worker.lab.generator", "worker.lab.target_process"])
async def test_a_child_without_orders_ends_in_peace(module: str) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        async with child(module, theirs) as process:
            process.dismiss()
            assert await process.receive() is None
    assert not psutil.pid_exists(process.pid)


class _Line:
    def __init__(self, line: bytes) -> None:
        self._line = line

    async def readline(self) -> bytes:
        return self._line


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"error": "away", "exit_code": 4}', Unreachable),
        (b'{"error": "no such table", "exit_code": 2}', Misconfigured),
        (b'{"error": "odd", "exit_code": 1}', LabFailed),
    ],
)
async def test_what_a_child_reports_keeps_its_exit_code(
    line: bytes, error: type[Exception]
) -> None:
    told = LabProcess.__new__(LabProcess)
    told._stdout = _Line(line)  # type: ignore[assignment]
    with pytest.raises(error):
        await told.receive()
