"""Names the troubles that a measurement shows, causes before effects.

A pool that is exhausted by a leak, by a lock or by one slow query in a hundred is not called too
small: more connections would only hide the cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.lab import causes, sizing
from worker.lab.findings import Diagnosis
from worker.lab.repeats import Repeats
from worker.lab.results import About


def diagnose(groups: Sequence[Repeats], about: About) -> tuple[Diagnosis, ...]:
    """All troubles that are found."""
    found = (
        causes.busy_machine(groups),
        causes.overloaded_generator(groups),
        causes.leak(groups),
        causes.lock_contention(groups),
        causes.busy_event_loop(groups),
        causes.slow_queries(groups),
        causes.slow_commit(groups),
        causes.connection_churn(groups),
        sizing.too_small(groups, about),
        sizing.too_big(groups),
    )
    return tuple(each for each in found if each is not None)
