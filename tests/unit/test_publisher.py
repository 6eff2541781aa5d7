"""Publishing: in order, confirmed, again from the first that was not, and no message wedges it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import pamqp.frame
import pytest
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    ConnectionFrameError,
    ConnectionInternalError,
    DeliveryError,
    PublishError,
)
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.support.fakes import NO_WAIT, turns, until
from worker.broker.errors import code_of
from worker.broker.publisher import isolation as isolation_module
from worker.broker.publisher import outlet as outlet_module
from worker.broker.publisher import publisher as publisher_module
from worker.broker.publisher.publisher import SUSPICIOUS_LOSSES, Faults, Publisher
from worker.broker.topology import Topology
from worker.core.errors import Unreachable
from worker.core.messages import Publication
from worker.settings.settings import BrokerSettings
from worker.telemetry.readiness import Component

FRAME_MAX = 131_072
"""What RabbitMQ allows for one frame, and so for all properties of a message, by default."""


class StillTopology(Topology):
    async def ensure(self, connection: AbstractConnection) -> None:
        """There is no broker to declare anything on."""


class Sent:
    def __init__(self, options: dict[str, Any]) -> None:
        self.body: bytes = options["body"]
        self.routing_key: str = options["routing_key"]
        self.properties: Basic.Properties = options["properties"]
        self.options = options


Reaction = Callable[[Sent], Awaitable[None]]


async def confirm(_: Sent) -> None:
    """At once."""


def fail(error: BaseException) -> Reaction:
    async def reaction(_: Sent) -> None:
        raise error

    return reaction


def nacked() -> DeliveryError:
    return DeliveryError(None, Basic.Nack())


def returned() -> PublishError:
    frame = Basic.Return(312, "NO_ROUTE", "", "gone")
    message = DeliveredMessage(frame, ContentHeader(), b"", cast(Any, None))
    return PublishError(message, frame)


def end(channel: FakeChannel, reason: BaseException | None = None) -> Reaction:
    async def react(_: Sent) -> None:
        channel.die(reason)
        raise ChannelInvalidStateError("closed")

    return react


async def never(_: Sent) -> None:
    await asyncio.Event().wait()


class FakeChannel:
    """Notes what is published, and reacts to the n-th publish as it is told.

    Whether it answers when it is asked, by a message for no queue, is `answers`.
    """

    max_content_size = FRAME_MAX - 8

    def __init__(self, reactions: dict[int, Reaction] | None = None) -> None:
        self.sent: list[Sent] = []
        self.reactions = reactions or {}
        self.otherwise: Reaction = confirm
        self.is_closed = False
        self.answers = True
        self.refusal: ChannelAccessRefused | None = None
        self.ending: BaseException | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def basic_publish(self, body: bytes, **options: Any) -> None:
        if self.is_closed:
            raise ChannelInvalidStateError("closed")
        if not options.get("mandatory"):
            async with asyncio.timeout(options.get("timeout")):
                await (confirm if self.answers else never)(cast(Any, None))
            return
        sent = Sent({"body": body, **options})
        self.sent.append(sent)
        async with asyncio.timeout(options.get("timeout")):
            await self.reactions.get(len(self.sent), self.otherwise)(sent)

    def die(self, reason: BaseException | None = None) -> None:
        self.is_closed, self.ending = True, reason
        if not self.ended.done():
            self.ended.set_result("it died")

    @property
    def bodies(self) -> list[str]:
        return [sent.body.decode() for sent in self.sent]


class Bench:
    """A publisher that is served with one fake connection after the other."""

    def __init__(self, *channels: FakeChannel, confirm_timeout_seconds: float = 30) -> None:
        self.part = Component("events")
        self.channels = [*channels]
        self.opened: list[FakeChannel] = []
        self.blocked = False
        self.publisher = Publisher(
            StillTopology("worker", BrokerSettings()),
            self.part,
            confirm_timeout_seconds=confirm_timeout_seconds,
        )

    @property
    def sent(self) -> list[Sent]:
        return [sent for channel in self.opened for sent in channel.sent]

    async def open_channel(self, _: object) -> FakeChannel:
        self.opened.append(self.channels.pop(0) if self.channels else FakeChannel())
        return self.opened[-1]

    async def is_blocked(self, _: object) -> bool:
        return self.blocked

    async def serve(self) -> None:
        while True:
            try:
                await self.publisher.serve(cast(AbstractConnection, object()))
            except Exception as error:  # as `keep_connected` does
                self.part.down(str(error))
            await asyncio.sleep(0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.serve())
        try:
            async with asyncio.timeout(5):
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def publish(self, *publications: Publication) -> Faults:
        async with self.serving():
            return await self.publisher.publish(publications)


async def closed(_: object, channel: FakeChannel) -> str:
    return await asyncio.shield(channel.ended)


@pytest.fixture(autouse=True)
def fake_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_channel(connection: object) -> FakeChannel:
        return await current[-1].open_channel(connection)

    async def is_blocked(connection: object) -> bool:
        return await current[-1].is_blocked(connection)

    monkeypatch.setattr(publisher_module, "RECONNECT", NO_WAIT)
    monkeypatch.setattr(publisher_module, "BLOCKED_CHECK_SECONDS", 0.001)
    monkeypatch.setattr(outlet_module, "open_channel", open_channel)
    monkeypatch.setattr(outlet_module, "ending_of", lambda channel: channel.ending)
    monkeypatch.setattr(isolation_module, "connect", connect)
    monkeypatch.setattr(publisher_module, "is_blocked", is_blocked)
    monkeypatch.setattr(publisher_module, "closed", closed)
    monkeypatch.setattr(publisher_module, "refusal_of", lambda channel: channel.refusal)


@asynccontextmanager
async def connect(*_: object) -> AsyncIterator[object]:
    yield object()


current: list[Bench] = []


def make_bench(*channels: FakeChannel, **options: Any) -> Bench:
    current.append(Bench(*channels, **options))
    return current[-1]


def event(body: str, **fields: Any) -> Publication:
    return Publication("worker.events", "user.created", body.encode(), **fields)


def letter(body: str, original: Basic.Properties, **headers: Any) -> Publication:
    return Publication("", "worker.dead-letters", body.encode(), headers=headers, copy_of=original)


async def test_messages_go_out_in_order_persistent_and_mandatory() -> None:
    bench = make_bench()
    await bench.publish(*(event(f"{number}") for number in range(50)))

    assert [sent.body for sent in bench.sent] == [str(number).encode() for number in range(50)]
    for sent in bench.sent:
        assert sent.options["mandatory"] is True
        assert sent.properties.delivery_mode == 2


async def test_where_a_right_lacks_only_a_confirm_makes_it_ready_again() -> None:
    refused, broken, granted = FakeChannel(), FakeChannel(), FakeChannel()
    refused.refusal = ChannelAccessRefused("write access refused")
    grant = asyncio.Event()

    async def confirm_later(_: Sent) -> None:
        await grant.wait()

    refused.otherwise, broken.otherwise = end(refused), end(broken)
    granted.otherwise = confirm_later
    bench = make_bench(refused, broken, granted)
    async with bench.serving():
        publishing = asyncio.create_task(bench.publisher.publish([event("1")]))
        await until(lambda: bool(granted.sent))
        assert "write access refused" in str(bench.part.reason)
        grant.set()
        await publishing
        assert bench.part.ready


async def test_an_event_carries_its_properties() -> None:
    bench = make_bench()
    fields: dict[str, Any] = {
        "content_type": "application/cloudevents+json",
        "type": "user.created",
        "correlation_id": "chain",
        "headers": {"commandid": "c"},
    }
    await bench.publish(event("a", **fields))
    (sent,) = bench.sent

    assert sent.routing_key == "user.created"
    assert sent.properties.content_type == "application/cloudevents+json"
    assert sent.properties.message_type == "user.created"
    assert sent.properties.correlation_id == "chain"
    assert sent.properties.headers == {"commandid": "c"}
    assert sent.properties.timestamp is not None


async def test_nothing_to_publish_needs_no_connection() -> None:
    await asyncio.wait_for(make_bench().publisher.publish([]), 5)


async def test_publishing_waits_for_a_connection() -> None:
    bench = make_bench()
    task = asyncio.create_task(bench.publisher.publish([event("a")]))
    await turns()
    assert not task.done()
    async with bench.serving():
        await task

    assert bench.part.ready or bench.sent


async def test_each_attempt_has_an_identity_of_its_own() -> None:
    first = FakeChannel()
    first.otherwise = end(first)
    bench = make_bench(first)
    await bench.publish(*(event("same") for _ in range(5)))

    ids = [sent.properties.message_id for sent in bench.sent]
    assert len(ids) == len(set(ids)) > 5


async def test_what_the_broker_refuses_is_told_and_the_others_are_not_sent_again() -> None:
    channel = FakeChannel({2: fail(nacked()), 4: fail(returned())})
    faults = await make_bench(channel).publish(*(event(body) for body in "abcde"))

    assert "".join(channel.bodies) == "abcde"
    assert faults.keys() == {1, 3}
    assert isinstance(faults[1], DeliveryError)
    assert isinstance(faults[3], PublishError)


async def all_but_b(sent: Sent) -> None:
    if sent.body == b"b":
        await never(sent)


async def test_a_message_about_which_alone_the_broker_is_silent_is_at_fault() -> None:
    channel = FakeChannel()
    channel.otherwise = all_but_b
    channel.answers = False  # it has answered for a later one: that says enough
    bench = make_bench(channel, confirm_timeout_seconds=0.1)
    faults = await bench.publish(*(event(body) for body in "abc"))

    assert "".join(channel.bodies) == "abc"
    assert faults.keys() == {1}
    assert isinstance(faults[1], TimeoutError)


async def test_of_a_message_that_nothing_follows_the_broker_is_asked_whether_it_is_well() -> None:
    channel = FakeChannel()
    channel.otherwise = all_but_b
    bench = make_bench(channel, confirm_timeout_seconds=0.1)
    faults = await bench.publish(*(event(body) for body in "ab"))

    assert faults.keys() == {1}
    assert len(bench.opened) == 1


async def test_a_broker_that_is_silent_to_all_has_the_connection_renewed() -> None:
    first, second = FakeChannel(), FakeChannel()
    first.otherwise = all_but_b
    first.answers = False
    bench = make_bench(first, second, confirm_timeout_seconds=0.1)
    faults = await bench.publish(*(event(body) for body in "ab"))

    assert not faults
    assert "".join(first.bodies) == "ab"
    assert "".join(second.bodies) == "b"


async def test_a_broker_that_may_only_be_slow_is_given_more_and_more_time() -> None:
    now = asyncio.get_running_loop().time
    asked: dict[FakeChannel, float] = {}

    def never_on(channel: FakeChannel) -> Reaction:
        async def note(sent: Sent) -> None:
            asked.setdefault(channel, now())
            await never(sent)

        return note

    async def take_a_while(_: Sent) -> None:
        await asyncio.sleep(0.03)

    silent, slow = [FakeChannel() for _ in range(3)], FakeChannel()
    for channel in silent:
        channel.otherwise = never_on(channel)
        channel.answers = False
    slow.otherwise = take_a_while
    bench = make_bench(*silent, slow, confirm_timeout_seconds=0.2)
    await bench.publish(event("a"))

    first, second = (after - before for before, after in pairwise(asked.values()))
    assert first >= 0.02
    assert second >= 0.04
    assert slow.bodies == ["a"]
    assert bench.publisher._patience.seconds >= 4 * 0.03, (
        "the next burst of that size needs as long"
    )


@pytest.mark.parametrize("error", [asyncio.CancelledError, ChannelInvalidStateError])
async def test_a_channel_that_dies_in_the_middle_loses_nothing(error: type[BaseException]) -> None:
    async def die(_: Sent) -> None:
        first.die()
        raise error("it died")

    first, second = FakeChannel({3: die}), FakeChannel()
    bench = make_bench(first, second)
    await bench.publish(*(event(body) for body in "abcdef"))

    assert "".join(second.bodies) == "cdef"


async def test_publishing_can_be_cancelled() -> None:
    channel = FakeChannel({1: never})
    bench = make_bench(channel)
    async with bench.serving():
        task = asyncio.create_task(bench.publisher.publish([event("a")]))
        await until(lambda: channel.sent)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_correlation_id_too_long_for_amqp_is_left_to_the_event() -> None:
    bench = make_bench()
    await bench.publish(event("a", correlation_id="ü" * 128), event("b", correlation_id="ü" * 127))

    assert [sent.properties.correlation_id for sent in bench.sent] == [None, "ü" * 127]


ORIGINAL: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "priority": 5,
    "correlation_id": "chain",
    "reply_to": "asker",
    "message_id": "m1",
    "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
    "message_type": "user.create",
    "app_id": "shop",
}


async def test_a_dead_letter_keeps_what_it_came_with() -> None:
    bench = make_bench()
    came = Basic.Properties(headers={"tenant": "eu", "x-code": "forged"}, **ORIGINAL)
    await bench.publish(letter("a", came, **{"x-code": "invalid"}))
    (sent,) = bench.sent

    for name, value in ORIGINAL.items():
        assert getattr(sent.properties, name) == value
    assert sent.properties.headers == {"tenant": "eu", "x-code": "invalid"}
    assert sent.properties.delivery_mode == 2


async def test_a_dead_letter_leaves_behind_what_would_move_expire_or_fail_it() -> None:
    bench = make_bench()
    came = Basic.Properties(
        headers={"CC": ["other"], "BCC": ["another"], "tenant": "eu"},
        expiration="60",
        user_id="somebody",
        delivery_mode=1,
    )
    await bench.publish(letter("a", came))
    (sent,) = bench.sent

    assert sent.properties.headers == {"tenant": "eu"}
    assert not sent.properties.expiration
    assert not sent.properties.user_id
    assert sent.properties.delivery_mode == 2


async def test_a_dead_letter_does_not_ask_for_a_direct_reply() -> None:
    bench = make_bench()
    came = Basic.Properties(reply_to="amq.rabbitmq.reply-to")
    await bench.publish(letter("a", came))

    # The broker closes the channel of whoever publishes that without consuming from it.
    assert bench.sent[0].properties.reply_to != "amq.rabbitmq.reply-to"


@pytest.mark.parametrize(
    "headers",
    [
        {"a": 1e300},
        {"a": b"\xff\xfe"},
        {"a": {1, 2}},
        {"a": 2**70},
    ],
)
async def test_properties_that_cannot_be_written_again_are_dropped(headers: Any) -> None:
    bench = make_bench()
    await bench.publish(letter("a", Basic.Properties(headers=headers), **{"x-code": "invalid"}))

    assert bench.sent[0].properties.headers == {"x-code": "invalid"}


async def test_headers_that_leave_no_room_take_no_other_property_along() -> None:
    bench = make_bench()
    original = Basic.Properties(
        headers={"long": "x" * FRAME_MAX}, correlation_id="c", message_id="m"
    )
    await bench.publish(letter("a", original, **{"x-code": "invalid"}))
    (sent,) = bench.sent

    assert (sent.properties.correlation_id, sent.properties.message_id) == ("c", "m")
    assert sent.properties.headers == {"x-code": "invalid"}


@pytest.mark.parametrize("size", [1_000, 100_000, 129_000, 130_000, 130_500, 131_000])
async def test_a_dead_letters_properties_fit_into_one_frame(size: int) -> None:
    bench = make_bench()
    came = Basic.Properties(headers={"a": "x" * size}, message_id="m1")
    await bench.publish(letter("a", came, **{"x-code": "invalid", "x-detail": "d" * 1_000}))
    (sent,) = bench.sent
    frame = pamqp.frame.marshal(ContentHeader(body_size=1, properties=sent.properties), 1)

    # A longer one makes the broker close the connection, at every further attempt as well.
    assert len(frame) <= FRAME_MAX
    assert sent.properties.headers is not None
    assert sent.properties.headers["x-code"] == "invalid"


async def test_dead_letters_with_one_message_id_are_never_in_flight_together() -> None:
    in_flight, most = 0, 0

    async def slowly(sent: Sent) -> None:
        nonlocal in_flight, most
        if sent.properties.message_id == "m1":
            in_flight += 1
            most = max(most, in_flight)
            await turns(3)
            in_flight -= 1

    channel = FakeChannel()
    channel.otherwise = slowly
    bench = make_bench(channel)
    same = Basic.Properties(message_id="m1")
    other = Basic.Properties(message_id="m2")
    async with bench.serving():
        await asyncio.gather(
            bench.publisher.publish([letter("a", same), letter("b", other), letter("c", same)]),
            bench.publisher.publish([letter("d", same)]),
        )

    assert most == 1
    assert sorted(channel.bodies) == ["a", "b", "c", "d"]


async def test_a_broker_with_an_alarm_is_not_sent_the_same_again_and_again() -> None:
    channel = FakeChannel()
    channel.otherwise = never
    bench = make_bench(channel, confirm_timeout_seconds=0.2)
    bench.blocked = True
    async with bench.serving():
        task = asyncio.create_task(bench.publisher.publish([event("a")]))
        await until(lambda: not bench.part.ready and "alarm" in str(bench.part.reason))
        await asyncio.sleep(0.2)
        attempts = len(bench.sent)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    # The broker reads nothing meanwhile: each attempt would stay in this process's memory.
    assert attempts <= 2


async def test_the_end_of_an_alarm_is_told() -> None:
    bench = make_bench()
    bench.blocked = True
    async with bench.serving():
        await until(lambda: bench.opened and "alarm" in str(bench.part.reason))
        bench.blocked = False
        await until(lambda: bench.part.ready)


def kill_on(bad: bytes, reason: BaseException | None) -> Callable[[FakeChannel], Reaction]:
    """How channels react that end at one message; what follows it is lost with them."""

    def on(channel: FakeChannel) -> Reaction:
        async def react(sent: Sent) -> None:
            if sent.body == bad or channel.is_closed:
                channel.die(reason)
                raise ChannelInvalidStateError("closed")

        return react

    return on


class Mortal(Bench):
    """Each of its channels ends as it is told."""

    def __init__(self, on: Callable[[FakeChannel], Reaction], **options: Any) -> None:
        super().__init__(**options)
        self.on = on

    async def open_channel(self, connection: object) -> FakeChannel:
        channel = await super().open_channel(connection)
        channel.otherwise = self.on(channel)
        return channel

    @property
    def confirmed(self) -> list[bytes]:
        return [sent.body for sent in self.sent]


ENDS = [
    ChannelPreconditionFailed("message size 17"),
    ChannelNotFoundEntity("no exchange"),
    ChannelClosed(311, "CONTENT_TOO_LARGE"),
    ConnectionInternalError("INTERNAL_ERROR"),
    ConnectionFrameError("FRAME_ERROR"),
    None,  # without a word
]


@pytest.mark.parametrize("reason", ENDS)
@pytest.mark.parametrize("place", [0, 3, 9])
async def test_the_message_that_ends_channels_is_found_and_the_others_leave(
    place: int, reason: BaseException | None
) -> None:
    bodies = [f"{number}" for number in range(10)]
    bench = Mortal(kill_on(bodies[place].encode(), reason))
    current.append(bench)
    faults = await bench.publish(*map(event, bodies))

    assert faults.keys() == {place}
    assert code_of(faults[place]) == code_of(reason)
    # By halves, and not one by one.
    assert len(bench.opened) <= 2 + 2 * len(bodies).bit_length() + SUSPICIOUS_LOSSES


async def test_neighbours_in_other_lanes_are_found_innocent_at_once() -> None:
    bench = Mortal(kill_on(b"bad", ENDS[0]))
    current.append(bench)
    async with bench.serving():
        faults = await asyncio.gather(
            bench.publisher.publish([event("a"), event("b")]),
            bench.publisher.publish([event("c"), event("bad"), event("d")]),
            bench.publisher.publish([event("e")]),
        )

    assert [sorted(each) for each in faults] == [[], [1], []]
    assert bench.part.ready


async def test_what_ends_channels_whatever_is_sent_is_not_looked_for_in_each_message() -> None:
    bench = Mortal(lambda channel: end(channel, ChannelAccessRefused("access to exchange")))
    current.append(bench)
    faults = await bench.publish(*(event(f"{number}") for number in range(100)))

    assert faults.keys() == set(range(100))
    assert len(bench.opened) < 20


async def test_an_operator_who_ends_connections_makes_no_message_suspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(isolation_module, "connect")  # nothing is tried apart
    bench = make_bench(*(FakeChannel() for _ in range(5)))
    for channel in bench.channels[:4]:
        channel.otherwise = end(channel, ConnectionClosed(320, "CONNECTION_FORCED"))

    assert await bench.publish(event("a"), event("b")) == {}
    assert bench.opened[-1].bodies == ["a", "b"]
    assert len(bench.opened) == 5


async def test_an_outage_in_the_middle_of_a_search_is_waited_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Mortal(kill_on(b"3", ENDS[0]))
    current.append(bench)
    calls = 0

    @asynccontextmanager
    async def connect_now_and_then(*_: object) -> AsyncIterator[object]:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise Unreachable("down")
        yield object()

    monkeypatch.setattr(isolation_module, "connect", connect_now_and_then)
    faults = await bench.publish(*(event(f"{number}") for number in range(6)))

    assert faults.keys() == {3}
    assert calls >= 3, "there was no outage"


async def test_the_outage_lasts_until_what_waited_has_left() -> None:
    first = FakeChannel()
    first.otherwise = end(first)
    bench = make_bench(first)
    gate = asyncio.Event()
    bench.channels.append(second := FakeChannel())

    async def confirm_later(_: Sent) -> None:
        await gate.wait()

    second.otherwise = confirm_later
    async with bench.serving():
        await bench.publisher.outage.over()
        task = asyncio.create_task(bench.publisher.publish([event("a")]))
        await until(lambda: second.sent)
        over = asyncio.create_task(bench.publisher.outage.over())
        await bench.publisher.outage.lasting(0.01)
        assert not over.done()
        gate.set()
        await task
        await over


@pytest.mark.parametrize("frame_max", [4_096, 65_536, FRAME_MAX])
async def test_headers_fit_the_frame_that_was_negotiated(frame_max: int) -> None:
    channel = FakeChannel()
    channel.max_content_size = frame_max - 8
    bench = make_bench(channel)
    state = {"commandid": "c", "traceparent": "p", "tracestate": "x" * frame_max}
    came = Basic.Properties(headers={"long": "x" * frame_max, "tenant": "eu"}, message_id="m")
    ours = {"x-code": "invalid", "x-detail": "d" * 1_000}
    await bench.publish(event("a", headers=state), letter("b", came, **ours))

    for sent in channel.sent:
        header = ContentHeader(body_size=1, properties=sent.properties)
        assert len(pamqp.frame.marshal(header, 1)) <= frame_max
    assert [sent.properties.headers for sent in channel.sent] == [
        {"commandid": "c"},
        {"tenant": "eu", **ours},
    ]
