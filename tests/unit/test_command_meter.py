"""Each command is counted once, under labels that no message can choose; what fails is told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from time import time
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from tests.support.fakes import delivery, make_codec
from worker.core.messages import (
    Blocked,
    DeadLetter,
    Done,
    Job,
    Outcome,
    Refused,
    ResultEvent,
    Retry,
    Settled,
    Unavailable,
)
from worker.telemetry.command_instruments import AGE, GROUP, LANE, PROCESS, SIZE
from worker.telemetry.command_log import CommandLog, keep_summing_up
from worker.telemetry.commands import MAX_LABELS, CommandMeter
from worker.telemetry.histogram import Sizes
from worker.telemetry.instruments import Instrument


def make_meter(*, tells_done: bool = False) -> CommandMeter:
    return CommandMeter(CommandLog(tells_done=tells_done), suspect_from=3)


def job(type_: str = "user.delete", **properties: Any) -> Job:
    command = {"id": "c1", "type": type_, "target": {"id": 1}}
    return Job(make_codec().decode(delivery(command, **properties)))


def answer(code: str = "", *, replayed: bool = False) -> ResultEvent:
    body = json.dumps({"data": {"code": code}}).encode()
    return ResultEvent("e", "user.delete.rejected", body, replayed=replayed)


DONE = Done(answer())
REFUSED = Refused(answer("not_found"))
LETTER = DeadLetter(answer("failed"), "failed", "five times", 5)
RETRY = Retry("ValueError: of a custom handler", 0.1)


async def measure(meter: CommandMeter, *pairs: tuple[Job, Outcome]) -> None:
    """Have the meter see these, or one of each kind."""
    given = pairs or [
        (job(), each) for each in (DONE, REFUSED, LETTER, RETRY, Blocked(), Unavailable("x"))
    ]

    async def process(_: Sequence[Job]) -> list[Outcome]:
        return [outcome for _, outcome in given]

    async def publish(_: Sequence[tuple[Job, Settled]]) -> None: ...

    await meter.around_processing(process)([job for job, _ in given])
    settled = [(job, it) for job, it in given if isinstance(it, Settled)]
    await meter.around_publishing(publish)(settled)


def read(meter: CommandMeter, instrument: Instrument) -> Any:
    ((_, value),) = dict(meter.read())[instrument]
    return value


async def test_each_outcome_is_counted_once_and_where_it_belongs() -> None:
    meter = make_meter()
    await measure(meter)
    again = Done(answer(replayed=True))
    await measure(meter, (job(), again), (job("no.such"), DONE))

    assert meter.settled == {
        ("user.delete", "done", ""): 2,
        ("user.delete", "refused", "not_found"): 1,
        ("user.delete", "dead_letter", "failed"): 1,
        ("unknown", "done", ""): 1,
    }
    assert meter.duplicates == {"user.delete": 1}
    assert meter.retries == {("user.delete", "ValueError"): 1}
    assert meter.postponed == {"x": 1}
    assert meter.answers == {"event": 5, "dead_letter": 1}
    assert meter.totals() == {
        "done": 3,
        "refused": 1,
        "dead_letter": 1,
        "duplicates": 1,
        "retries": 1,
        "postponed": 1,
    }
    assert read(meter, PROCESS).count == 5
    assert read(meter, GROUP).count == read(meter, LANE).count == 2
    assert (read(meter, SIZE).count, read(meter, SIZE).sum) == (2, 8)


async def test_what_fails_to_be_published_is_not_counted_and_nothing_stays_active() -> None:
    meter = make_meter()

    async def fail(*_: object) -> Any:
        assert meter.active == 1
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await meter.around_processing(fail)([job()])
    assert meter.active == 0
    meter.active = 1
    with pytest.raises(asyncio.CancelledError):
        await meter.around_publishing(fail)([(job(), DONE)])

    assert not meter.settled
    assert not meter.answers


async def test_labels_are_bounded_whatever_handlers_raise() -> None:
    meter = make_meter()
    for number in range(MAX_LABELS + 50):
        await measure(meter, (job(), Refused(answer(f"code-{number}"))))
        await measure(meter, (job(), Retry(f"Error{number}: again", 0)))

    assert len({code for _, _, code in meter.settled}) <= MAX_LABELS + 1
    assert len({reason for _, reason in meter.retries}) <= MAX_LABELS + 1
    assert meter.settled.total() == MAX_LABELS + 50


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data": null}', b"\xff"])
async def test_an_answer_without_a_code_ends_no_lane(body: bytes) -> None:
    meter = make_meter()
    await measure(meter, (job(), Refused(ResultEvent("e", "x.rejected", body))))

    assert meter.settled == {("user.delete", "refused", "unknown"): 1}


@pytest.mark.parametrize(
    ("timestamp", "counted"), [(-7, 1), (0, 1), (None, 0), (5_000, 0), (10**15, 0), (-(10**9), 0)]
)
async def test_the_age_of_a_command_is_taken_from_a_timestamp_that_makes_sense(
    timestamp: int | None, counted: int
) -> None:
    meter = make_meter()
    sent = None if timestamp is None else int(time()) + timestamp
    await measure(meter, (job(timestamp=sent), DONE))

    assert read(meter, AGE).count == counted
    if timestamp == -7:
        assert 7 <= read(meter, AGE).sum < 20


async def test_deliveries_are_counted_with_those_that_came_before() -> None:
    meter = make_meter()
    for count in (0, 1, 2, 3, 9):
        meter.took(delivery({}, delivery_count=count))

    assert (meter.consumed, meter.redelivered, meter.suspects) == (5, 4, 2)


@pytest.fixture
def logging_on() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))


@pytest.mark.usefixtures("logging_on")
@pytest.mark.parametrize("tells_done", [False, True])
async def test_what_does_not_go_well_is_a_line_each(tells_done: bool) -> None:
    meter = make_meter(tells_done=tells_done)
    with capture_logs() as lines:
        await measure(meter)
    told = [(line["event"], line["log_level"], line.get("code")) for line in lines]

    assert told == [
        ("retried", "info", None),
        *([("done", "debug", "")] if tells_done else []),
        ("refused", "info", "not_found"),
        ("dead letter", "info", "failed"),
    ]
    for line in lines:
        assert {"id", "type", "key", "outcome", "attempt", "ms"} <= line.keys()
        assert (line["id"], line["type"]) == ("c1", "user.delete")
    assert lines[-1]["attempt"] == 5
    assert lines[0]["reason"] == RETRY.reason


@pytest.mark.usefixtures("logging_on")
async def test_a_minute_with_work_is_summed_up_and_one_without_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"done": 5, "refused": 0}
    minutes = 0

    async def minute(_: float) -> None:
        nonlocal minutes
        minutes += 1
        if minutes == 2:
            counts["done"] += 7
        if minutes == 4:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", minute)
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await keep_summing_up(lambda: counts)

    assert [(line["event"], line["done"], line["refused"]) for line in lines] == [
        ("commands", 7, 0)
    ]


def test_sizes_are_counted_up_to_powers_of_two() -> None:
    sizes = Sizes()
    for size in (1, 2, 3, 4, 5, 256, 1_000, 5_000):
        sizes.record(size)

    counts = dict(zip(Sizes.bounds, sizes.up_to(), strict=True))
    assert [counts[bound] for bound in (1, 2, 4, 8, 256, 1024)] == [1, 2, 4, 5, 6, 7]
    assert (sizes.count, sizes.sum) == (8, 6271)
