"""A contender as a process: its start, its end, and what it had to say if it failed."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, TypeVar

from dev.benchmarks.arena import Arena
from dev.benchmarks.contender import ROOT, Contender

T = TypeVar("T")

GRACE_SECONDS = 8
"""How long a contender may take to stop in order."""
LAST_LINES, LINE_WIDTH = 15, 200


class ContenderFailed(Exception):
    """It could not be started, or ended, or did nothing; says which, with the end of its log."""


class Running:
    """A contender's processes; they are one session, whose number is `session`."""

    def __init__(self, contender: Contender, process: asyncio.subprocess.Process, log: IO[bytes]):
        self.contender = contender
        self.session = process.pid
        self._process = process
        self._log = log
        self._ended = asyncio.create_task(process.wait())

    async def while_it_runs(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work. Raises `ContenderFailed` if the contender ends before."""
        working = asyncio.create_task(work)
        try:
            await asyncio.wait({working, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise self.failed(f"ended with exit code {self._process.returncode}")
            return working.result()
        except TimeoutError as error:
            raise self.failed(str(error)) from error
        finally:
            working.cancel()

    def failed(self, reason: str) -> ContenderFailed:
        """The error that says so, with the end of the log."""
        return ContenderFailed(f"{self.contender.name}: {reason}{_end_of(self._log)}")

    async def stop(self) -> None:
        """End it in order, as its users would: SIGTERM, and time to finish."""
        if self._process.returncode is None:
            self._process.terminate()
            await asyncio.wait({self._ended}, timeout=GRACE_SECONDS)

    async def end(self) -> None:
        """Make sure that none of its processes is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.session, signal.SIGKILL)
        await self._ended


@asynccontextmanager
async def running(contender: Contender, arena: Arena) -> AsyncIterator[Running]:
    """Start the contender in the arena; nothing of it is left afterwards."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        process = await _start(contender.argv, contender, arena, folder, stdout=log, stderr=log)
        it = Running(contender, process, log)
        try:
            yield it
        finally:
            await it.end()


async def fill_by_itself(contender: Contender, arena: Arena, bodies: Sequence[bytes]) -> None:
    """Have the contender's own program publish the commands, in the form that its library wants."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        process = await _start(
            contender.fill, contender, arena, folder, stdin=PIPE, stdout=log, stderr=log
        )
        try:
            await process.communicate(b"\n".join(bodies))
        except (BrokenPipeError, ConnectionResetError):
            await process.wait()
        if process.returncode:
            raise ContenderFailed(
                f"{contender.name}: its queue could not be filled, exit code "
                f"{process.returncode}{_end_of(log)}"
            )


async def _start(
    argv: Sequence[str], contender: Contender, arena: Arena, folder: str, **files: Any
) -> asyncio.subprocess.Process:
    # The worker as it comes: neither settings of this shell, nor those of a `.env` in this folder.
    inherited = {name: value for name, value in os.environ.items() if name[:7] != "WORKER_"}
    environment = {
        **inherited,
        "PYTHONPATH": str(ROOT),
        **arena.variables(),
        **contender.environment,
    }
    try:
        return await asyncio.create_subprocess_exec(
            *argv, env=environment, cwd=folder, start_new_session=True, **files
        )
    except FileNotFoundError:
        raise ContenderFailed(
            f"{contender.name}: {argv[0]} is not there: `make bench` installs it"
        ) from None


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    return (
        "; it said last:\n" + "\n".join(f"    {line[:LINE_WIDTH]}" for line in lines)
        if lines
        else ""
    )
