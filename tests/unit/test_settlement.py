"""Answers that the broker does not take: who waits for them, who does not, and how they end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionInternalError,
    DeliveryError,
)
from pamqp.commands import Basic

from tests.support.fakes import NO_WAIT, FakeSource, make_job, tag_of, turns, until
from worker.broker.publisher import persistent_publisher
from worker.broker.publisher.publisher import Faults, Publisher
from worker.broker.publisher.settlement import Settlement
from worker.broker.topology import Topology
from worker.core.messages import DeadLetter, Done, Job, Publication, ResultEvent, Settled
from worker.settings.settings import BrokerSettings
from worker.telemetry.readiness import Component

MAX_ATTEMPTS = 3
NACK = DeliveryError(None, Basic.Nack())
TOO_LARGE = ChannelPreconditionFailed("message size 17 is larger than configured max size 16")
SILENCE = TimeoutError("the broker never confirmed it")
OUTAGES = (NACK, SILENCE, ChannelAccessRefused("a topic"))


class FakePublisher:
    """Takes what `faults` does not name; these are by kind and tag."""

    def __init__(self) -> None:
        self.faults: dict[tuple[str, int], BaseException] = {}
        self.sent: list[tuple[str, int]] = []
        self.apart: list[tuple[str, int]] = []
        self.letters: dict[int, Publication] = {}
        self.attempts: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.well = True

    async def publish(self, publications: Sequence[Publication]) -> Faults:
        await asyncio.sleep(0)
        faults: Faults = {}
        for number, publication in enumerate(publications):
            if (fault := self.look(publication)) is not None:
                faults[number] = fault
        return faults

    async def publish_apart(self, publication: Publication) -> BaseException | None:
        await asyncio.sleep(0)
        self.apart.append(name(publication))
        return self.look(publication)

    async def is_well(self) -> bool:
        await asyncio.sleep(0)
        return self.well

    def look(self, publication: Publication) -> BaseException | None:
        which = name(publication)
        self.attempts[which] += 1
        if (fault := self.faults.get(which)) is None:
            self.sent.append(which)
            if which[0] == "letter":
                self.letters[which[1]] = publication
        return fault


def name(publication: Publication) -> tuple[str, int]:
    kind = "event" if publication.exchange else "letter"
    return kind, int(publication.headers["tag" if kind == "event" else "x-event-id"])


class Bench:
    def __init__(self) -> None:
        self.publisher = FakePublisher()
        self.part = Component("answers")
        self.source = FakeSource()
        self.settlement = Settlement(
            Topology("worker", BrokerSettings()),
            cast(Publisher, self.publisher),
            self.part,
            max_attempts=MAX_ATTEMPTS,
            most=2,
            reply_seconds=5,
        )
        self.replied: list[Publication] = []
        cast(Any, self.settlement._replies).send = self.replied.extend

    def job(self, key: str | None = None, *, reply_to: str | None = None) -> Job:
        job = make_job(key, id_="c", source=self.source)
        envelope = cast(Any, job.envelope)
        envelope.trace = {"tag": str(tag_of(job))}
        envelope.reply_to = reply_to
        return job

    async def done(self, *jobs: Job) -> None:
        await self.settlement.answer([(job, done(job)) for job in jobs])

    async def many(self, attempts: int = 10 * MAX_ATTEMPTS) -> None:
        """Until so many attempts more have been made, or everything rests."""
        before = sum(self.publisher.attempts.values())
        for _ in range(50 * attempts):
            await asyncio.sleep(0)
            if sum(self.publisher.attempts.values()) - before > attempts:
                return

    def metric(self, name: str) -> dict[tuple[str, ...], Any]:
        readings = {instrument.name: found for instrument, found in self.settlement.read()}
        return {tuple(attributes.values()): value for attributes, value in readings[name]}


def done(job: Job) -> Settled:
    return Done(ResultEvent(str(tag_of(job)), "user.created", b"{}"))


def failed(job: Job) -> Settled:
    return DeadLetter(
        ResultEvent(str(tag_of(job)), "user.create.failed", b"{}"), "failed", "why", 5
    )


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(persistent_publisher, "RECONNECT", NO_WAIT)
    monkeypatch.setattr(persistent_publisher, "ALONE_SECONDS", 0)
    bench = Bench()
    running = asyncio.create_task(bench.settlement.run())
    await turns(2)
    yield bench
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_event_is_not_overtaken_because_a_dead_letter_behind_it_is_refused(
    bench: Bench,
) -> None:
    first, behind, other = bench.job("a"), bench.job("a"), bench.job("b")
    bench.publisher.faults["letter", tag_of(behind)] = NACK
    bench.publisher.faults["event", tag_of(first)] = NACK
    bench.publisher.well = False
    pairs = [(first, done(first)), (behind, failed(behind)), (other, done(other))]
    await bench.settlement.answer(pairs)
    assert bench.source.settled == [tag_of(other)]

    bench.publisher.faults.clear()
    await until(lambda: len(bench.source.settled) == 3)
    events = [tag for kind, tag in bench.publisher.sent if kind == "event"]
    assert events.index(tag_of(first)) < events.index(tag_of(behind))


async def test_one_that_is_not_taken_holds_back_its_key_alone(bench: Bench) -> None:
    culprit, behind, other, last = (bench.job(key) for key in ("a", "a", "b", None))
    bench.publisher.faults["event", tag_of(culprit)] = NACK
    bench.publisher.well = False
    await bench.done(culprit, behind, other, last)
    later = bench.job("a"), bench.job("b")
    await bench.done(*later)

    assert bench.source.settled == [tag_of(job) for job in (other, last, later[1])]
    assert not bench.part.ready
    assert "cannot leave" in str(bench.part.reason)
    assert bench.metric("worker.answers.held") == {(): 3}

    bench.publisher.faults.clear()
    await until(lambda: bench.part.ready)
    mine = [tag_of(job) for job in (culprit, behind, later[0])]
    # What was published ahead of it is published once more behind it.
    assert [tag for _, tag in bench.publisher.sent if tag in mine][-3:] == mine
    assert bench.source.settled[-3:] == mine
    assert bench.metric("worker.answers.held") == {(): 0}


@pytest.mark.parametrize("fault", OUTAGES)
async def test_an_event_that_alone_is_not_taken_makes_its_command_a_dead_letter(
    bench: Bench, fault: BaseException
) -> None:
    culprit, behind = bench.job("a"), bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = fault
    await bench.done(culprit, behind)
    while not bench.part.ready:
        await bench.done(bench.job())  # others are taken

    letter = bench.publisher.letters[tag_of(culprit)]
    assert letter.headers["x-code"] == "event_not_published"
    assert str(fault) in letter.headers["x-detail"]
    assert "the ledger holds the event" in letter.headers["x-detail"]
    assert letter.body == culprit.envelope.delivery.body
    assert {tag_of(culprit), tag_of(behind)} <= set(bench.source.settled)
    assert bench.source.rejected == []
    (((kind, _), number),) = bench.metric("worker.answers.given_up").items()
    assert (kind, number) == ("event", 1)


@pytest.mark.parametrize("fault", [TOO_LARGE, ConnectionInternalError("INTERNAL_ERROR")])
async def test_a_fault_that_is_about_the_message_needs_no_others_to_compare_with(
    bench: Bench, fault: BaseException
) -> None:
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = fault
    bench.publisher.well = False
    await bench.done(culprit)
    await until(lambda: bench.source.settled)

    assert bench.publisher.attempts["event", tag_of(culprit)] == MAX_ATTEMPTS
    # What ends a channel is tried where nobody else's messages are.
    assert bench.publisher.apart == [("event", tag_of(culprit))] * (MAX_ATTEMPTS - 1)


async def test_a_dead_letter_that_is_not_taken_is_left_to_the_broker(bench: Bench) -> None:
    culprit, neighbour = bench.job("a"), bench.job("b")
    bench.publisher.faults["letter", tag_of(culprit)] = TOO_LARGE
    await bench.settlement.answer([(culprit, failed(culprit)), (neighbour, failed(neighbour))])

    assert bench.source.settled == [tag_of(neighbour)]
    await until(lambda: bench.source.rejected)
    assert bench.source.rejected == [tag_of(culprit)]
    assert bench.source.settled == [tag_of(neighbour)]
    assert bench.publisher.sent[-1] == ("event", tag_of(culprit)), "it is answered all the same"


async def test_where_neither_event_nor_dead_letter_is_taken_the_broker_has_the_command(
    bench: Bench,
) -> None:
    culprit = bench.job("a")
    for kind in ("event", "letter"):
        bench.publisher.faults[kind, tag_of(culprit)] = TOO_LARGE
    await bench.done(culprit)
    await until(lambda: bench.source.rejected)

    assert bench.source.settled == []


async def test_a_dead_letter_goes_before_its_event_and_is_not_sent_twice(bench: Bench) -> None:
    culprit, behind = bench.job("a"), bench.job("a")
    bench.publisher.faults["letter", tag_of(culprit)] = NACK
    bench.publisher.well = False
    await bench.settlement.answer([(culprit, failed(culprit)), (behind, failed(behind))])
    assert bench.publisher.sent == [("letter", tag_of(behind))]
    bench.publisher.faults.clear()
    await until(lambda: bench.part.ready)

    assert bench.publisher.sent == [
        ("letter", tag_of(behind)),
        ("letter", tag_of(culprit)),
        ("event", tag_of(culprit)),
        ("event", tag_of(behind)),
    ]


@pytest.mark.parametrize("fault", OUTAGES)
async def test_what_several_meet_alike_is_an_outage_and_waits(
    bench: Bench, fault: BaseException
) -> None:
    jobs = [bench.job(key) for key in "abc"]
    for job in jobs:
        bench.publisher.faults["event", tag_of(job)] = fault
    await bench.done(*jobs)
    await bench.many()

    assert bench.publisher.letters == {}
    assert bench.source.settled == []
    bench.publisher.faults.clear()
    await until(lambda: bench.part.ready)
    assert sorted(bench.source.settled) == [tag_of(job) for job in jobs]


async def test_one_alone_waits_while_the_broker_is_not_well(bench: Bench) -> None:
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = NACK
    bench.publisher.well = False
    await bench.done(culprit)
    await bench.many()
    assert bench.publisher.letters == {}

    bench.publisher.well = True
    await until(lambda: bench.source.settled)
    assert bench.publisher.letters.keys() == {tag_of(culprit)}


async def test_that_one_alone_is_at_fault_is_believed_after_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistent_publisher, "ALONE_SECONDS", 60)
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = NACK
    await bench.done(culprit)
    await bench.many()
    assert bench.publisher.letters == {}

    await bench.done(bench.job("b"))  # another is taken
    await until(lambda: tag_of(culprit) in bench.source.settled)


async def test_that_one_alone_is_at_fault_is_believed_once_until_another_is_taken(
    bench: Bench,
) -> None:
    first, second = bench.job("a"), bench.job("b")
    for job in (first, second):
        bench.publisher.faults["event", tag_of(job)] = NACK
    await bench.done(first)
    await until(lambda: bench.source.settled)
    await bench.done(second)
    await bench.many()
    assert bench.publisher.letters.keys() == {tag_of(first)}

    await bench.done(bench.job("c"))
    await until(lambda: tag_of(second) in bench.source.settled)


@pytest.mark.parametrize(
    "fault",
    [SILENCE, ChannelAccessRefused("access to exchange 'worker.events' refused for user 'w'")],
    ids=["silence", "a right"],
)
async def test_what_may_be_so_for_all_is_waited_for_where_nothing_else_is_taken(
    bench: Bench, fault: BaseException
) -> None:
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = fault
    await bench.done(culprit)
    await bench.many()

    assert bench.publisher.letters == {}


async def test_silence_is_no_outage_once_others_were_taken_with_the_one(bench: Bench) -> None:
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = SILENCE
    await bench.done(culprit, bench.job("b"))
    await until(lambda: tag_of(culprit) in bench.source.settled)

    assert bench.publisher.letters.keys() == {tag_of(culprit)}


async def test_what_the_broker_delivers_again_is_not_given_up_here_too(bench: Bench) -> None:
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = TOO_LARGE
    await bench.done(culprit)
    bench.source.closed = True
    await until(lambda: bench.part.ready)

    assert bench.publisher.letters == {}


async def test_of_what_the_broker_delivers_again_only_so_much_is_held(bench: Bench) -> None:
    gone = [bench.job(f"{number}") for number in range(4)]
    bench.publisher.well = False
    for job in gone:
        bench.publisher.faults["event", tag_of(job)] = NACK
    await bench.done(*gone)
    bench.source.closed = True
    await bench.many()
    assert bench.metric("worker.answers.held") == {(): 4}

    bench.source = FakeSource()
    again = bench.job("0")
    await bench.done(again)
    await until(lambda: bench.metric("worker.answers.held")[()] <= 4)


async def test_nobody_waits_for_replies(bench: Bench) -> None:
    culprit, asked = bench.job("a", reply_to="one"), bench.job("a", reply_to="two")
    bench.publisher.faults["event", tag_of(culprit)] = NACK
    await bench.done(culprit, asked)

    assert [reply.routing_key for reply in bench.replied] == ["one", "two"]


async def test_a_bug_in_what_holds_answers_does_not_stay_unseen(bench: Bench) -> None:
    culprit = bench.job("a")
    bench.publisher.faults["event", tag_of(culprit)] = NACK

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    cast(Any, bench.publisher).is_well = fail
    running = asyncio.create_task(bench.settlement.run())
    await bench.done(culprit)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(running, 5)
