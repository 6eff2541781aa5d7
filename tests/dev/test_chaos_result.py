"""What a run of the chaos rig counts as good, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest

from dev.chaos.fleet import Ending, is_ready, living
from dev.chaos.publish import figures
from dev.chaos.result import in_words, is_good, result
from dev.chaos.run import Happened
from worker.testing.journal import Confirm, Journal, ObservedEvent, PublishAttempt, Stock
from worker.testing.verdict import judge

A_FAULT = Happened(1, "broker-kill", "worker-0", 0, 3, 2.5, 2.5)


def found(
    *,
    happened: tuple[Happened, ...] = (A_FAULT,),
    endings: tuple[Ending, ...] = (),
    book: Journal | None = None,
    anonymous: Journal | None = None,
    rate: float = 0,
    **late_after: float,
) -> dict[str, Any]:
    book = book or Journal(stock=Stock([], 1))
    return result(
        circumstances={"seed": 1, "minutes": 1.0, "rate": rate, "workers": [1]},
        happened=happened,
        endings=endings,
        verdict=judge(book),
        book=book,
        anonymous=anonymous or Journal(),
        **late_after,
    )


def test_a_run_in_which_all_went_well_is_good() -> None:
    good = found(endings=(Ending("worker-0", 1, -9, True),))
    assert is_good(good)
    assert in_words(good).endswith("GOOD")
    assert "| faults | 1 |" in figures([good])


@pytest.mark.parametrize(
    "worse",
    [
        {"happened": (Happened(1, "broker-kill", "worker-0", 0, 3, 10.1, 10.1),)},
        {"happened": (Happened(1, "broker-kill", "worker-0", 0, 3, None, None),)},
        {"endings": (Ending("worker-0", 1, 1, False),)},
        {"happened": (Happened(1, "poison", "worker-0", 0, 3, 1, 1, None, "not convicted"),)},
        {"happened": (Happened(1, "broker-kill", "worker-0", 0, 3, 1, 1, "no port", None),)},
        {"rate": 1},
        {"book": Journal(attempts=(PublishAttempt("c1", "t", 0),), confirms=(Confirm("c1", 0),))},
        {"anonymous": Journal(confirms=(Confirm("anonymous-1", 0),))},
    ],
    ids=["late", "never", "died", "broken", "missed", "idle", "lost", "lost-without-id"],
)
def test_one_thing_that_is_wrong_is_enough(worse: dict[str, Any]) -> None:
    if "book" in worse:
        worse["book"] = Journal(
            attempts=worse["book"].attempts, confirms=worse["book"].confirms, stock=Stock([], 1)
        )
    bad = found(**worse)
    assert not is_good(bad)
    assert in_words(bad).endswith("NOT GOOD")


def test_what_is_late_can_be_told_by_who_knows_the_machine() -> None:
    slow, never = (Happened(1, "broker-kill", "worker-0", 0, 3, it, it) for it in (10.1, None))
    assert is_good(found(happened=(slow,), late_after=60))
    assert not is_good(found(happened=(never,), late_after=60))


def test_a_command_without_an_id_is_known_by_the_words_of_its_answer() -> None:
    event = ObservedEvent(
        None, "e1", "user.update.rejected", None, "not_found", '"anonymous-s0-1"', "d", "m", 1
    )
    book = Journal(events=(event,), stock=Stock([], 1))
    anonymous = Journal(confirms=(Confirm("anonymous-s0-1", 0), Confirm("anonymous-s0-12", 0)))
    assert found(book=book, anonymous=anonymous)["without_id"]["lost"] == ["anonymous-s0-12"]


def test_a_process_that_its_parent_will_start_later_does_not_live() -> None:
    well, waiting = {"ready": True}, {"ready": False, "reason": "…; started again in 0.4 s"}
    starting = {"ready": False, "reason": "starting"}
    assert is_ready({"ready": False, "processes": {"1": well, "2": waiting}})
    assert living({"ready": False, "processes": {"1": well, "2": waiting}}) == 1
    assert not is_ready({"ready": False, "processes": {"1": well, "2": starting}})
    assert not is_ready({"ready": False, "processes": {"1": waiting}})
    assert not is_ready(None)
