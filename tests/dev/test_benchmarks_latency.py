"""Latency is counted from the intended time, and what falls behind shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dev.benchmarks.arena import fresh_arena, servers
from dev.benchmarks.catalogue import CONTENDERS
from dev.benchmarks.commands import CREATE
from dev.benchmarks.latency import report
from dev.benchmarks.latency.sender import Order, Sent
from dev.benchmarks.latency.turn import Turn, first_arrivals, measured, schedules, send, take
from worker.lab.arrivals import Schedule

pytestmark = pytest.mark.long

CONSTANT = Schedule("constant", 10, warm_up_seconds=1, measure_seconds=4, seed=1)
TIMES = list(CONSTANT.times())
BEGIN = 1_000.0


def turn_of(
    answers: Sequence[float | None], *, late: float = 0.0, until: float = BEGIN + 9
) -> Turn:
    blank = Turn(round=1, contender="worker", arrivals="constant", rate=10, seconds=4)
    sent = Sent(BEGIN, [late] * len(TIMES))
    return measured(blank, CONSTANT, sent, answers=answers, until=until)


def test_a_quick_contender_is_as_quick_as_it_is() -> None:
    turn = turn_of([BEGIN + offset + 0.01 for offset in TIMES])
    assert turn.latency is not None
    assert turn.latency.p50 == pytest.approx(0.01, rel=0.01)
    assert turn.latency.max == pytest.approx(0.01, rel=0.01)
    assert turn.latency.count == 40  # the warm-up is left out
    assert turn.kept_up


def test_a_stall_shows_in_all_that_should_have_been_sent_meanwhile() -> None:
    # From 2 s to 4 s nothing goes on: neither the contender nor, say, a sender that waits for it.
    answers = [BEGIN + (4 if 2 <= offset < 4 else offset) + 0.01 for offset in TIMES]
    turn = turn_of(answers, late=0.5)
    assert turn.latency is not None
    assert turn.lateness is not None
    assert turn.latency.mean > 0.5
    assert turn.latency.p90 == pytest.approx(1.61, abs=0.11)
    assert turn.latency.max == pytest.approx(2.01, rel=0.01)
    assert turn.lateness.p50 == pytest.approx(0.5, rel=0.01)


def test_what_is_never_answered_counts_until_the_end() -> None:
    answers = [BEGIN + offset + 0.01 if offset < 3 else None for offset in TIMES]
    turn = turn_of(answers)
    assert turn.latency is not None
    assert turn.unanswered == 20
    assert turn.latency.count == 40
    assert turn.latency.max == pytest.approx(6, rel=0.01)
    assert turn.achieved == 5
    assert not turn.kept_up


def test_who_answers_in_the_end_but_not_in_time_has_not_kept_up() -> None:
    assert not turn_of([BEGIN + 2 * offset for offset in TIMES]).kept_up


def test_the_first_event_of_a_command_counts() -> None:
    bodies = [b'{"commandid": "a"}', b'{"commandid": "b"}', b'{"commandid": "a"}']
    assert first_arrivals([1, 2, 3], bodies) == {"a": 1, "b": 2}


def test_rounds_are_added_up_and_compared_one_by_one() -> None:
    def turn(number: int, contender: str, seconds: float) -> Turn:
        answered = turn_of([BEGIN + offset + seconds for offset in TIMES])
        return answered.model_copy(update={"round": number, "contender": contender, "rate": 200})

    turns = [turn(1, "worker", 0.01), turn(1, "faststream", 0.02)]
    turns += [turn(2, "worker", 0.09), turn(2, "faststream", 0.1)]
    turns.append(turn(3, "worker", 5))  # the other one failed in this round
    slow = report.rows([turns[-1]])[0]
    first, second = report.rows(turns[:-1])

    assert (first.contender, first.latency.count) == ("faststream", 80)
    assert first.latency.p50 == pytest.approx(0.02, rel=0.01)
    assert second.latency.max == pytest.approx(0.09, rel=0.01)
    assert first.p999 is None  # 80 commands cannot tell
    assert not slow.kept_up
    ratio = report.compared(turns, arrivals="constant", percentile="p50")
    assert ratio is not None
    assert (ratio.low, ratio.high) == pytest.approx((0.5, 0.9), rel=0.01)
    assert "**no: " in report.markdown(turns)
    assert "0.50 … 0.90 | ≤ 1.0, aim 0.7: " in report.markdown(turns)
    failed = Turn(
        round=4, contender="worker", arrivals="constant", rate=200, seconds=4, failure="ended"
    )
    assert report.rows([failed]) == []


@pytest.mark.servers
async def test_a_sender_that_cannot_keep_its_times_says_how_late_it_is() -> None:
    schedule = Schedule("poisson", 100_000, warm_up_seconds=0, measure_seconds=0.05, seed=1)
    count = sum(1 for _ in schedule.times())
    worker = CONTENDERS["worker"]
    async with servers() as place, fresh_arena(place) as arena:
        order = Order(arena.broker_url, worker.queue_of(arena), schedule, 1, count)
        assert Order.from_json(order.as_json()) == order
        sent = await send(order)
    assert len(sent.lateness) == count > 4_000
    assert min(sent.lateness) >= 0
    assert max(sent.lateness) > 0.05


@pytest.mark.servers
async def test_the_worker_answers_each_command_of_an_open_load() -> None:
    (schedule,) = schedules(["poisson"], [50], seconds=1, warm_up=1, seed=3)
    async with servers() as place:
        turn = await take(CONTENDERS["worker"], place, schedule, number=1, seed=3)
        assert turn.failure is None
        assert turn.unanswered == 0
        assert turn.latency is not None
        assert turn.latency.count == sum(offset >= 1 for offset in schedule.times())
        assert 0 < turn.latency.p50 < 2
        broken = replace(CONTENDERS["worker"], environment={"WORKER_LANES": "0"})
        turn = await take(broken, place, schedule, number=1, seed=3)
        assert turn.latency is None
        assert "ended with exit code 2" in (turn.failure or "")
    assert CREATE.bodies(2, seed=1) == CREATE.bodies(3, seed=1)[:2]  # the probe is the last one
