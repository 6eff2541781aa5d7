"""One line a file for tests that run side by side, in place of dots that belong to nobody."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from _pytest.terminal import TerminalReporter
from xdist.workermanage import WorkerController


class FileReport:
    """Says of each file, once all its tests are through, what became of them."""

    def __init__(self, terminal: TerminalReporter) -> None:
        self._terminal = terminal
        terminal._show_progress_info = False  # per cents of dots that are not there
        self._waiting: dict[str, set[str]] = {}
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: Sequence[str]
    ) -> None:
        if self._waiting:
            return  # every process collects the same
        for nodeid in ids:
            self._waiting.setdefault(_file(nodeid), set()).add(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, str] | None:
        """Counted as ever, and shown here alone; a failure keeps its letter."""
        if isinstance(report, pytest.TestReport) and not report.failed:
            counted = report.when == "call" or report.skipped
            return (report.outcome if counted else "", "", "SKIPPED" if report.skipped else "")
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = _file(report.nodeid)
        self._seconds[file] += report.duration
        if report.when == "call" or not report.passed:
            self._outcomes[file][report.outcome] += 1
        waiting = self._waiting.get(file, set())
        if report.when in ("setup", "call") or report.nodeid not in waiting:
            return
        waiting.discard(report.nodeid)
        if not waiting:
            self._tell(file)

    def _tell(self, file: str) -> None:
        counts = ", ".join(f"{n} {outcome}" for outcome, n in self._outcomes[file].items())
        bad = self._outcomes[file]["failed"]
        self._terminal.ensure_newline()
        line = f"{file:<58} {counts}, {self._seconds[file]:.1f} s"
        self._terminal.write_line(line, red=bool(bad))


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
