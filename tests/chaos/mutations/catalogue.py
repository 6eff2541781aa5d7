"""The ways in which the code is broken, and who is to notice."""

from __future__ import annotations

from tests.chaos.mutations.mutation import Mutation, change

MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        name="ack-on-arrival",
        breaks="a command is acknowledged before its transaction has committed",
        guarantee="G1",
        changes=(
            change(
                "lanes.py",
                "self._waiting.append(job)\nself._wake.set()",
                "self._waiting.append(job)\nself._wake.set()\nsource.settle(job.envelope.delivery.tag)",
                depth=8,
            ),
        ),
        witnesses=("unit/test_lanes.py::test_nothing_is_settled_before_it_is_published",),
    ),
    Mutation(
        name="ack-before-confirm",
        breaks="a command is acknowledged before the broker has its event",
        guarantee="G1",
        changes=(
            change(
                "lanes.py",
                "await self._publish(settled)",
                "asyncio.ensure_future(self._publish(settled))",
                depth=12,
            ),
        ),
        witnesses=("unit/test_lanes.py::test_nothing_is_settled_before_it_is_published",),
    ),
    Mutation(
        name="no-duplicate-check",
        breaks="a command that is delivered twice takes effect twice",
        guarantee="G2",
        changes=(
            change(
                "transaction.py",
                "seen = {} if self._trust else await self._look_up(jobs)",
                "seen: dict[str, Entry] = {}",
                depth=8,
            ),
            change(
                "database/ledger.py",
                "if len(written) != len(entries):",
                "if len(written) > len(entries):",
                depth=4,
            ),
        ),
        witnesses=("integration/test_outcomes.py::test_duplicates_at_once_have_one_effect",),
    ),
    Mutation(
        name="no-keyed-lanes",
        breaks="commands with one key run in different lanes at once",
        guarantee="G4",
        changes=(
            change(
                "lanes.py",
                "number = next(self._turn) if key is None else hash(key)",
                "number = next(self._turn)",
                depth=8,
            ),
        ),
        witnesses=(
            "unit/test_lanes_schedules.py::test_every_job_is_settled_once_and_each_key_in_order",
        ),
    ),
    Mutation(
        name="prune-too-early",
        breaks="the ledger forgets commands before their retention has passed",
        guarantee="G2",
        changes=(
            change(
                "database/ledger.py",
                ".where(_ledger.recorded_on < func.now() - older_than)",
                ".where(_ledger.recorded_on < func.now() - older_than / 2)",
                depth=8,
            ),
        ),
        witnesses=(
            "integration/test_bounds.py::test_the_ledger_forgets_what_is_older_than_its_retention",
        ),
    ),
)
