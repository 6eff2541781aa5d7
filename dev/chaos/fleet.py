"""The workers of a run: each a process, or a parent with several, and links of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from dev.chaos.launcher import CONTROL, RIG, Control
from dev.servers import ports
from dev.servers import processes as machine

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Ending:
    """How a process of the rig's ended."""

    worker: str
    at: float
    code: int
    expected: bool


class Worker:
    """`worker run`, started again whenever it ends, as an orchestrator would."""

    def __init__(
        self, name: str, processes: int, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.processes = processes
        self.folder = folder / name
        self.folder.mkdir()
        self.control = Control(self.folder)
        self.endings: list[Ending] = []
        self.expected: frozenset[int] = frozenset()
        """Exit codes that a fault that is under way accounts for."""
        self._log = self.folder / "worker.log"
        self._port = ports.choose(None)
        self._environment = {
            **environment,
            CONTROL: str(self.folder),
            RIG: str(os.getpid()),
            "WORKER_HEALTH__PORT": str(self._port),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._held = asyncio.Event()
        self._held.set()
        self._frozen: list[int] = []

    async def start(self) -> None:
        """Start it, and keep it running until `close`."""
        await self._start()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> int | None:
        """Stop it in order; its exit code."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            self.thaw()
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 40)
            except TimeoutError:
                for pid in self.pids():
                    machine.send([pid], signal.SIGKILL)
                await process.wait()
        return process.returncode

    @property
    def pid(self) -> int:
        """The process, or the parent of several."""
        assert self._process is not None
        return self._process.pid

    def pids(self) -> list[int]:
        """All its processes, the parent first."""
        rows = machine.table()
        return [pid for pid in machine.with_descendants([self.pid], rows) if pid in rows]

    def working_pids(self) -> list[int]:
        """The processes that carry commands out."""
        pids = self.pids()
        return pids if self.processes == 1 else pids[1:]

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Signal one of its processes, if it is still there."""
        machine.send([pid], number)

    def freeze(self) -> None:
        """Stop all its processes where they stand."""
        self._frozen = self.pids()
        machine.send(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        machine.send(self._frozen, signal.SIGCONT)
        self._frozen = []

    async def ended(self, pid: int, within: float) -> bool:
        """Whether that process is gone in time."""
        deadline = time.monotonic() + within
        while pid in machine.table():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def state(self, client: aiohttp.ClientSession) -> dict[str, Any] | None:
        """What `/readyz` shows; `None` while nobody answers."""
        try:
            async with client.get(
                f"http://127.0.0.1:{self._port}/readyz", timeout=aiohttp.ClientTimeout(2)
            ) as response:
                found: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None
        return found

    async def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "dev.chaos.launcher", "run"),
                f"--processes={self.processes}",
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            began = time.monotonic()
            code = await self._process.wait()
            self.endings.append(Ending(self.name, time.time(), code, code in self.expected))
            await asyncio.sleep(1 if time.monotonic() - began < 1 else 0)
            await self._start()


def is_ready(state: dict[str, Any] | None) -> bool:
    """Whether all processes that live are ready, and at least one does."""
    if state is None:
        return False
    if "processes" not in state:
        return bool(state["ready"])
    return living(state) > 0 and all(it["ready"] for it in _living(state))


def living(state: dict[str, Any] | None) -> int:
    """How many processes carry commands out; one that is to be started later does not live."""
    if state is None:
        return 0
    return len(_living(state)) if "processes" in state else 1


def _living(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        it for it in state["processes"].values() if "started again" not in str(it.get("reason", ""))
    ]


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    """What all workers of a run are told; nothing of the surrounding shell's settings."""
    inherited = {name: value for name, value in os.environ.items() if name[:7] != "WORKER_"}
    return {**inherited, **settings}


def log_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a worker's log."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.open(errors="replace") if line.startswith("{")]
