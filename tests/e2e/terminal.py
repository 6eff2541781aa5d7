"""The command line at a terminal: what is shown there, and what somebody types."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.commandline import SECONDS, CommandLine
from tests.support.harness import eventually


class Terminal:
    """A command whose stdin, stdout and stderr are one terminal."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._shown = b""
        self._ended = False
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def shown(self) -> str:
        """All that has been shown, what was typed as well."""
        return self._shown.decode().replace("\r\n", "\n")

    async def shows(self, words: str) -> None:
        """Wait until the words are there."""
        await eventually(lambda: words in self.shown or self._ended, within=SECONDS)
        assert words in self.shown, self.shown

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    async def end(self) -> int:
        """Wait for the command's end; its exit code."""
        async with asyncio.timeout(SECONDS):
            code = await self.process.wait()
        await eventually(lambda: self._ended)
        return code

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            piece = os.read(self._descriptor, 65_536)
        except OSError:  # nobody has it open any more
            piece = b""
        if piece:
            self._shown += piece
        else:
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._descriptor)


@asynccontextmanager
async def at_terminal(
    cli: CommandLine, *arguments: str, columns: int = 80, **variables: str
) -> AsyncIterator[Terminal]:
    """`worker …` at a terminal of that width, killed in the end if it still runs."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {**cli.environment, "TERM": "xterm", **variables}
    environment.pop("COLUMNS", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *arguments,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(process, ours)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
        await terminal.end()
        terminal.close()
