"""The command line as users meet it: a process, its exit code, its two outputs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.harness import Harness, eventually

SECONDS = 60
"""Far more than any command needs, even on a busy machine."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What a program reads on stdout: one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


class Running:
    """A command that has not ended yet."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = b""
        self.err = b""
        assert process.stdout is not None
        assert process.stderr is not None
        self._reading = asyncio.gather(
            self._read(process.stdout, "out"), self._read(process.stderr, "err")
        )

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        while piece := await stream.read(65_536):
            setattr(self, name, getattr(self, name) + piece)

    async def said(self, words: str) -> None:
        """Wait until stderr holds the words."""
        await eventually(lambda: words.encode() in self.err or self.ended, within=SECONDS)
        assert words.encode() in self.err, self.err.decode()

    async def printed(self, lines: int) -> list[bytes]:
        """Wait until stdout holds that many lines."""
        await eventually(lambda: self.out.count(b"\n") >= lines or self.ended, within=SECONDS)
        assert self.out.count(b"\n") >= lines, self.err.decode()
        return self.out.splitlines()

    @property
    def ended(self) -> bool:
        """Whether both outputs are closed."""
        return self._reading.done()

    def press_ctrl_c(self) -> None:
        """What a terminal does: the whole process group gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    async def end(self, *, by: signal.Signals | None = None) -> Result:
        """Wait for its end, after a signal or not."""
        if by is not None:
            self.process.send_signal(by)
        async with asyncio.timeout(SECONDS):
            await self._reading
            code = await self.process.wait()
        return Result(code, self.out.decode(), self.err.decode())


class CommandLine:
    """Runs `python -m worker`, or another program, with the environment of one test."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        program: Sequence[str] = (sys.executable, "-m", "worker"),
        folder: Path | None = None,
    ) -> None:
        # A warning in a command would be an error; what reaches stderr is looked at below.
        self.environment = {**environment, "PYTHONWARNINGS": "error", "COLUMNS": "100"}
        self._program = program
        self._folder = folder

    def of(self, *program: str) -> CommandLine:
        """The same place and environment for another program."""
        return CommandLine(self.environment, program=program, folder=self._folder)

    @asynccontextmanager
    async def running(self, *arguments: str, **variables: str) -> AsyncIterator[Running]:
        """A command in the background, killed in the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            *self._program,
            *arguments,
            cwd=self._folder,
            env={**self.environment, **variables},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0,  # as a shell would, so that a test can press Ctrl-C
        )
        running = Running(process)
        try:
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await running.end()

    async def __call__(
        self, *arguments: str, code: int | None = 0, stdin: str | bytes = b"", **variables: str
    ) -> Result:
        """Run a command to its end, which must be with that exit code, if one is given."""
        async with self.running(*arguments, **variables) as running:
            assert running.process.stdin is not None
            running.process.stdin.write(stdin.encode() if isinstance(stdin, str) else stdin)
            running.process.stdin.close()
            result = await running.end()
        assert code in (None, result.code), f"{arguments} ended with {result.code}: {result.err}"
        assert "Traceback" not in result.err, result.err
        assert "Warning" not in result.err, result.err
        return result


async def post(harness: Harness, type_: str, event: bytes | dict[str, Any]) -> None:
    """Publish an event as if a worker had."""
    import aio_pika

    body = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
    exchange = await harness.channel.get_exchange(
        f"{harness.settings.namespace}.events", ensure=False
    )
    await exchange.publish(aio_pika.Message(body), type_, mandatory=True)


async def declare(harness: Harness) -> None:
    """Make the queues and exchanges, with no worker."""
    from worker.broker.topology import Topology

    settings = harness.settings
    await Topology(settings.namespace, settings.broker).ensure(harness.connection)
