"""How `make test` spreads the tests over several processes, each with one file at a time.

Much of the suite waits: for processes and servers that start, for outages that it makes. So more
processes than cores are at work; each has its own databases, namespaces and private servers. What
measures, and would measure its neighbours with it, runs at the end, when no other process is left.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

ALONE = frozenset({"tests/integration/test_lab_known_answer.py"})
"""Files that measure so exactly that nothing may run beside them."""

MEASURING = (
    *(
        f"tests/integration/test_{what}.py"
        for what in ("lab_troubles", "lab_service", "lab_measure", "lab_scenarios", "pool")
    ),
    "tests/dev/test_benchmarks_pool_cost.py",
)
"""Files that measure, too, but bear each other: next to last, the longest first."""

FIRST, LAST = ("chaos", "e2e"), ("dev", "unit")
"""Folders: those with the longest files begin, so that all processes end at about one time."""


def measures(nodeid: str) -> bool:
    """Whether it is the clock that judges: what else the machine does can make the test fail."""
    return place_in_line(nodeid) >= 90


def is_beside_others() -> bool:
    """Whether this process is one of several that test."""
    return "PYTEST_XDIST_WORKER" in os.environ


def place_in_line(nodeid: str) -> int:
    """Where a test comes in the whole run; equals keep the random order that they have."""
    path = PurePosixPath(nodeid.partition("::")[0])
    folder = path.parts[1]
    if str(path) in ALONE:
        return 100
    if str(path) in MEASURING:
        return 90 + MEASURING.index(str(path))
    if folder in FIRST:
        return FIRST.index(folder)
    return 50 + LAST.index(folder) if folder in LAST else 10


def _lets_others_be(scope: str) -> bool:
    return place_in_line(scope) > 0 and not measures(scope)


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist carries no types
    """Hands out the files in their order, and those that are to be alone when all else is done."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self._must_wait():
            return
        # What breaks servers mostly waits for them and leaves room for what computes; but four of
        # that kind at once keep each other from coming back in time.
        if self.nodes.index(node) % 2:
            scope = next(filter(_lets_others_be, self.workqueue), None)
            if scope is not None:
                self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if not self._must_wait():
            super()._reschedule(node)
        elif any(not other.shutting_down for other in self.nodes if other is not node):
            node.shutdown()  # when it has done what it has; the last one stays for what is left

    def remove_node(self, node: WorkerController) -> str | None:
        crashed: str | None = super().remove_node(node)
        for other in self.nodes:
            self._reschedule(other)
        return crashed

    def _must_wait(self) -> bool:
        return next(iter(self.workqueue), None) in ALONE and len(self.nodes) > 1
