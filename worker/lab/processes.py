"""The lab's two child processes, and the lines of JSON that it exchanges with them."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from socket import socket
from typing import Any

from worker.core.errors import Misconfigured, Unreachable, WorkerError

LONGEST_LINE_BYTES = 1 << 26
KILL_SECONDS = 10
"""How long a child may take to end once it was told to."""


class LabFailed(WorkerError):
    """The lab itself did not work; exit code 1."""


def runner() -> Any:
    """The module whose `run` is the fastest at hand, as `worker run` has it."""
    try:
        import uvloop
    except ImportError:  # Windows, PyPy
        return asyncio
    return uvloop


class LabProcess:
    """A process that is told and tells lines of JSON."""

    def __init__(self, process: Process, module: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self._process = process
        self._module = module
        self._stdin, self._stdout = process.stdin, process.stdout
        self._stderr = asyncio.create_task(process.stderr.read())

    def send(self, line: str) -> None:
        """Tell it something; if it has gone, `receive` will say so."""
        self._stdin.write(line.encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """What it tells next; `None` at its end. Raises what it was ended by."""
        line = await self._stdout.readline()
        if not line:
            if await self._process.wait() != 0:
                raise LabFailed(f"{self._module} ended unexpectedly: {await self._last_words()}")
            return None
        message: dict[str, Any] = json.loads(line)
        match message:
            case {"error": str(words), "exit_code": 4}:
                raise Unreachable(words)
            case {"error": str(words), "exit_code": 2}:
                raise Misconfigured(words)
            case {"error": str(words)}:
                raise LabFailed(words)
        return message

    def dismiss(self) -> None:
        """Tell it that nothing more comes: it ends."""
        self._stdin.close()

    async def end(self) -> None:
        """Wait for its end, and bring it about if it takes too long."""
        self.dismiss()
        try:
            async with asyncio.timeout(KILL_SECONDS):
                # It may still tell something: a full pipe would hold it up.
                while await self._stdout.read(1 << 16):
                    pass
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._stderr

    async def _last_words(self) -> str:
        lines = (await self._stderr).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


@asynccontextmanager
async def child(module: str, end: socket) -> AsyncIterator[LabProcess]:
    """A process of this module with one end of the link; gone when the block is left."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            str(end.fileno()),
            pass_fds=[end.fileno()],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=LONGEST_LINE_BYTES,
            # Ctrl-C reaches the lab alone, and it is the lab that stops its children, in order.
            start_new_session=True,
        )
    finally:
        # Ours must go, or the other side would never see the link end.
        end.close()
    started = LabProcess(process, module)
    try:
        yield started
    finally:
        await asyncio.shield(started.end())
