"""The parent: starts the children, passes signals on, adds up their health and exit codes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

from worker.service.supervisor.child import Child, worker_of
from worker.service.supervisor.log import Log
from worker.service.supervisor.metrics import CONTENT_TYPE, merged_metrics
from worker.service.supervisor.pages import PageBody, Pages, json_answer
from worker.service.supervisor.plan import SIGNALS, Plan

GRACE_SECONDS = 10
"""What a process may need beyond its `shutdown_seconds` to take leave of frozen servers."""

AT_ONCE_SECONDS = 5
"""How long "at once" may take."""

INTERRUPTED = 130
"""128 + SIGINT, as shells have it; a single process that is stopped at once ends with it, too."""


class Supervisor:
    """Keeps N processes running until signalled.

    The first signal stops all of them in order, the second at once. A process that does not end in
    time is killed. When the parent itself is killed, the lines close and the processes stop in
    order.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = Log(level=plan.log_level, as_json=plan.log_as_json)
        self._children = [
            Child(number, self._log, self._has_worked, worker_of(plan.processes))
            for number in range(1, plan.processes + 1)
        ]
        pages = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        self._pages = Pages(plan.health_host, plan.health_port, pages)
        self._signals = 0

    async def run(self) -> int:
        """Run until signalled; return the exit code.

        Raises `Misconfigured` where the pages cannot be served, or no process could work.
        """
        self._heed_signals()
        async with self._pages:
            url = f"http://{self._plan.health_host}:{self._pages.port}/readyz"
            self._log.info("health pages of all processes", url=url)
            running = [asyncio.create_task(child.keep_running()) for child in self._children]
            try:
                codes = await asyncio.gather(*running)
            except BaseException:
                self._stop()
                await asyncio.gather(*running, return_exceptions=True)
                raise
        return self._exit_code(codes)

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            # `nohup` has it ignored, and means it.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `become_supervisor`

    def _stop(self) -> None:
        self._signals += 1
        if self._signals > 2:
            return
        in_order = self._signals == 1
        self._log.info("stopping all processes" if in_order else "stopping all processes at once")
        for child in self._children:
            child.pass_on_signal()
        seconds = self._plan.shutdown_seconds + GRACE_SECONDS if in_order else AT_ONCE_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._kill)

    def _kill(self) -> None:
        for child in self._children:
            child.kill()

    def _exit_code(self, codes: Sequence[int]) -> int:
        if not any(codes):
            self._log.info("all processes stopped")
            return 0
        return INTERRUPTED if self._signals > 1 else 1

    def _has_worked(self) -> bool:
        return any(child.has_been_ready for child in self._children)

    async def _livez(self) -> PageBody:
        silent = [child.number for child in self._children if child.is_silent]
        return json_answer({"alive": not silent, "silent": silent}, well=not silent)

    async def _readyz(self) -> PageBody:
        states = {str(child.number): child.state() for child in self._children}
        ready = all(state["ready"] for state in states.values())
        return json_answer({"ready": ready, "processes": states}, well=ready)

    async def _metrics(self) -> PageBody:
        urls = {child.number: child.url for child in self._children if child.url is not None}
        return PageBody(await merged_metrics(urls), CONTENT_TYPE)
