"""One of the processes as the parent sees it: started, listened to, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from worker.core.backoff import Backoff
from worker.core.errors import Misconfigured
from worker.service.supervisor.log import Log
from worker.service.supervisor.plan import SIGNALS, python_module

RESTART = Backoff(base_seconds=0.5, cap_seconds=10)
"""Waits before a process that ended is started again."""

STEADY_SECONDS = 30
"""A process that ran this long starts the waits over."""

SILENT_SECONDS = 15
"""A process that reports nothing for this long is stuck; it should do so twice a second."""

Command = Callable[[int, int], Sequence[str]]
"""The command line of a child, from its number and its end of the line."""


def worker_of(processes: int) -> Command:
    """`worker run` as one of so many children."""
    run = [*python_module("worker"), "run", f"--processes={processes}"]
    return lambda number, line: [*run, f"--child={number}:{line}"]


class Child:
    """A number, and the process that has it just now."""

    def __init__(
        self,
        number: int,
        log: Log,
        has_worked: Callable[[], bool],
        command: Command,
    ) -> None:
        self.number = number
        self.has_been_ready = False
        self._log = log
        self._has_worked = has_worked
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._report: dict[str, Any] | None = None
        self._error: str | None = None
        self._heard = monotonic()
        self._why_not_ready = "not started yet"
        self._signals = 0
        self._signalled = asyncio.Event()

    async def keep_running(self) -> int:
        """Run one process after the other until signalled; return the last one's exit code.

        Raises `Misconfigured`, with the process's own sentence, where that is what ended it before
        any process ever was ready. Later it is a fault like any other, which may be mended.
        """
        attempt = 0
        while not self._signalled.is_set():
            began = monotonic()
            code = await self._run()
            if self._signals:
                return code
            if code == Misconfigured.exit_code and not self._has_worked():
                raise Misconfigured(self._error or f"process {self.number} {_ending(code)}")
            attempt = 1 if monotonic() - began >= STEADY_SECONDS else attempt + 1
            delay = RESTART.delay(attempt)
            self._why_not_ready = f"{_ending(code)}; started again in {delay:.1f} s"
            self._log.warning(
                "process ended",
                process=self.number,
                reason=_ending(code) + (f": {self._error}" if self._error else ""),
                again_in_seconds=round(delay, 3),
            )
            await self._wait_for_signal(delay)
        return 0

    def pass_on_signal(self) -> None:
        """The first one stops the process in order, the second at once."""
        self._signals += 1
        self._signalled.set()
        if self._line is not None:
            self._write_signal(self._line)

    def kill(self) -> None:
        """End the process without asking it."""
        if self._process is not None and self._process.returncode is None:
            self._log.warning("process killed", process=self.number)
            self._process.kill()

    @property
    def is_silent(self) -> bool:
        """Whether a process that should report does not."""
        return self._process is not None and monotonic() - self._heard > SILENT_SECONDS

    @property
    def url(self) -> str | None:
        """Where the process's own pages are, while one runs that has said so."""
        return str(self._report["url"]) if self._report else None

    def state(self) -> dict[str, Any]:
        """The process as `/readyz` shows it."""
        known: dict[str, Any] = {"pid": self._process.pid} if self._process else {}
        if self.is_silent:
            return {"ready": False, "reason": f"silent for over {SILENT_SECONDS} s", **known}
        if self._report is None:
            return {"ready": False, "reason": self._why_not_ready, **known}
        return self._report | known

    async def _run(self) -> int:
        """Run one process to its end; return its exit code, negative for a signal."""
        self._error = None
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            try:
                with theirs:
                    process = await self._start(theirs.fileno())
            except OSError as error:  # no more processes, no more memory
                self._error = f"cannot be started: {error.strerror or error}"
                return 1
            self._line, self._process = ours, process
            for _ in range(self._signals):  # came while it was being started
                self._write_signal(ours)
            listening = asyncio.create_task(self._listen(ours))
            code = await process.wait()
            # What it said last is read at once; a grandchild may keep the line open.
            await asyncio.wait([listening], timeout=1)
            listening.cancel()
            await asyncio.wait([listening])  # the loop lets go of the line before it is closed
            self._line = self._process = self._report = None
        return code

    async def _start(self, line: int) -> asyncio.subprocess.Process:
        self._why_not_ready, self._heard = "starting", monotonic()
        with _signals_held():
            process = await asyncio.create_subprocess_exec(
                *self._command(self.number, line),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[line],
                # The parent has the port that is set; each process takes any free one.
                env={**os.environ, "WORKER_HEALTH__PORT": "0"},
            )
        self._log.info("process started", process=self.number, pid=process.pid)
        return process

    async def _listen(self, line: socket.socket) -> None:
        loop, rest = asyncio.get_running_loop(), b""
        with suppress(ConnectionError):
            while piece := await loop.sock_recv(line, 65_536):
                *reports, rest = (rest + piece).split(b"\n")
                for report in reports:
                    self._hear(json.loads(report))

    def _hear(self, report: dict[str, Any]) -> None:
        self._heard = monotonic()
        if "error" in report:
            self._error = report["error"]
        else:
            self._report = report
            self.has_been_ready |= report["ready"]

    def _write_signal(self, line: socket.socket) -> None:
        with suppress(OSError):  # it has just ended
            line.send(b"!")
        if self._report is None and self._process is not None:
            # It is still starting: it need not get as far as the line. (Or just there: then this
            # one stops it in order, too, and is not counted.)
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def _wait_for_signal(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._signalled.wait()


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process started here has the signals blocked until it knows what to do with them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        # Not the mask of before: several children are started at the same time.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
