"""The check that every command was answered exactly once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dev.benchmarks.commands import CHANGE, CREATE, Workload
from dev.benchmarks.tally import Tally, tally

SENT = [json.dumps({"id": id_, "type": "user.create"}).encode() for id_ in "abcd"]


def event(id_: str, type_: str = "user.created") -> bytes:
    return json.dumps({"commandid": id_, "type": type_}).encode()


ALL = [event(id_) for id_ in "abcd"]


def verdict(events: list[bytes], **changes: Any) -> Tally:
    facts: dict[str, Any] = {
        "types": {"user.created": 4},
        "rows": 4,
        "rows_expected": 4,
        "left": 0,
    } | changes
    return tally(SENT, events, **facts)


def test_each_once_is_clean() -> None:
    assert verdict(ALL).clean
    assert str(verdict(ALL)) == "each once"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (ALL[1:], Tally(lost=1)),
        ([], Tally(lost=4)),
        ([*ALL, ALL[0], ALL[0], ALL[1]], Tally(repeated=3, unexpected=3)),
        ([*ALL[1:], ALL[1]], Tally(lost=1, repeated=1)),
        ([*ALL[1:], event("z")], Tally(lost=1, strange=1)),
        ([*ALL[1:], event("a", "user.create.rejected")], Tally(unexpected=1)),
        ([*ALL, b"{"], Tally(strange=1)),
        ([*ALL, b'{"commandid": "a"}'], Tally(repeated=1, strange=1)),
        ([*ALL, b"[]"], Tally(strange=1)),
    ],
)
def test_what_is_wrong_is_counted(events: list[bytes], expected: Tally) -> None:
    assert verdict(events) == expected
    assert not expected.clean


def test_the_table_and_the_queue_have_their_say() -> None:
    assert verdict(ALL, rows=3) == Tally(rows_off=-1)
    assert verdict(ALL, rows=5) == Tally(rows_off=1)
    assert verdict(ALL, left=2) == Tally(left=2)
    assert str(verdict(ALL[1:], rows=3)) == "1 lost, -1 rows off"


@pytest.mark.parametrize("workload", [CREATE, CHANGE])
def test_a_workload_has_as_many_events_as_commands(workload: Workload) -> None:
    bodies = workload.bodies(100, seed=1)
    assert len({json.loads(body)["id"] for body in bodies}) == 100
    assert sum(workload.events(100).values()) == 100
    assert bodies == workload.bodies(100, seed=1)
    assert bodies != workload.bodies(100, seed=2)


def test_each_user_is_updated_before_it_is_deleted_under_the_same_key() -> None:
    seen: dict[str, list[str]] = {}
    for body in CHANGE.bodies(1_000, seed=3):
        command = json.loads(body)
        seen.setdefault(json.dumps(command["target"]), []).append(command["type"])
    assert len(seen) == CHANGE.rows_before(1_000) == 500
    assert all(types == ["user.update", "user.delete"] for types in seen.values())
