"""Workers as processes of their own, to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.harness import eventually

PARTS = {"commands", "database", "events", "topology"}
"""Of a worker's readiness: those that are not ready from the start."""


class WorkerProcess:
    """`worker run`, its log in a file."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *, ready: bool = True) -> None:
        """Start it; by default wait until it is ready."""
        self._seen = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "worker", "run", env=dict(self._environment), stderr=log
            )
        if ready:
            await eventually(lambda: self._parts_ready() >= PARTS, within=30)

    def _parts_ready(self) -> set[str]:
        with self._log.open("rb") as log:
            log.seek(self._seen)
            lines = [json.loads(line) for line in log if line.startswith(b"{")]
        return {line["part"] for line in lines if line.get("event") == "ready"}

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def kill(self) -> None:
        """End it at once, wherever it is."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """End it in order; return its exit code."""
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 30)

    def freeze(self) -> None:
        """Stop it where it stands."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()

    async def end(self) -> None:
        """Make sure that nothing is left of it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
