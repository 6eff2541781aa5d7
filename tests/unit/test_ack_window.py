"""Acknowledgements: each once, in order, `multiple` only where everything below is settled."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiormq.channel import Channel
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import turns, until
from worker.broker.consumer import ack_window as window_module
from worker.broker.consumer.ack_window import AckWindow


class FakeChannel:
    """A broker's side of a channel: a tag that is not outstanding closes it, as RabbitMQ does."""

    def __init__(self) -> None:
        self.outstanding: list[int] = []
        self.acked: list[int] = []
        self.rejected: list[int] = []
        self.frames: list[tuple[int, bool]] = []
        self.may_write = asyncio.Event()
        self.may_write.set()

    def deliver(self, window: AckWindow, tag: int) -> None:
        self.outstanding.append(tag)
        window.add(tag)

    def _take(self, tag: int, multiple: bool) -> list[int]:
        assert tag in self.outstanding, f"406 PRECONDITION_FAILED - unknown delivery tag {tag}"
        taken = [each for each in self.outstanding if each == tag or (multiple and each < tag)]
        self.outstanding = [each for each in self.outstanding if each not in taken]
        return taken

    async def basic_ack(self, tag: int, multiple: bool = False, wait: bool = True) -> None:
        await self.may_write.wait()
        self.frames.append((tag, multiple))
        self.acked += self._take(tag, multiple)

    async def basic_reject(self, tag: int, *, requeue: bool, wait: bool = True) -> None:
        await self.may_write.wait()
        assert not requeue
        self.rejected += self._take(tag, multiple=False)


def make_window(tags: int, prefetch: int = 1_000) -> tuple[FakeChannel, AckWindow]:
    channel = FakeChannel()
    window = AckWindow(cast(Channel, channel), prefetch)
    for tag in range(1, tags + 1):
        channel.deliver(window, tag)
    return channel, window


async def test_one_frame_acknowledges_all_up_to_the_low_water_mark() -> None:
    channel, window = make_window(5)
    for tag in (3, 1, 2, 5):
        window.settle(tag)
    await window.flush()

    assert channel.frames == [(3, True)]
    assert channel.outstanding == [4, 5]


async def test_what_is_above_a_straggler_is_acknowledged_one_by_one() -> None:
    channel, window = make_window(5)
    for tag in (3, 5):
        window.settle(tag)
    await window.flush()
    assert channel.frames == []
    await window.flush(stragglers=True)
    assert channel.frames == [(3, False), (5, False)]
    for tag in (1, 2, 4):
        window.settle(tag)
    await window.flush()

    assert channel.frames[2:] == [(4, True)]
    assert channel.outstanding == []


async def test_nothing_is_acknowledged_where_nothing_is_settled() -> None:
    channel, window = make_window(3)
    await window.flush(stragglers=True)

    assert channel.frames == []


async def test_a_tag_settled_twice_or_never_delivered_changes_nothing() -> None:
    channel, window = make_window(2)
    for tag in (1, 1, 99):
        window.settle(tag)
    await window.flush(stragglers=True)
    window.settle(1)
    await window.flush(stragglers=True)

    assert channel.acked == [1]


async def test_nothing_is_acknowledged_after_the_close() -> None:
    channel, window = make_window(3)
    window.settle(1)
    window.close()
    window.settle(2)
    await window.flush(stragglers=True)

    assert window.closed
    assert channel.frames == []


async def test_acknowledgements_leave_as_deliveries_are_settled_until_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_SECONDS", 0)
    channel, window = make_window(4)
    task = asyncio.create_task(window.acknowledge())
    window.settle(1)
    await until(lambda: channel.acked == [1])
    window.settle(3)
    await until(lambda: channel.acked == [1, 3])
    window.settle(2)
    window.settle(4)
    await until(lambda: sorted(channel.acked) == [1, 2, 3, 4])
    window.close()
    await asyncio.wait_for(task, 5)


async def test_a_straggler_is_given_time_to_be_acknowledged_with_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_SECONDS", 60)
    channel, window = make_window(200)
    task = asyncio.create_task(window.acknowledge())
    for tag in range(200, 1, -1):
        window.settle(tag)
        await turns()
    before = list(channel.frames)
    window.settle(1)
    await until(lambda: len(channel.acked) == 200)
    window.close()
    await asyncio.wait_for(task, 5)

    assert before == []
    assert channel.frames == [(200, True)]


async def test_stragglers_that_crowd_the_window_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_SECONDS", 60)
    channel, window = make_window(8, prefetch=8)
    task = asyncio.create_task(window.acknowledge())
    for tag in range(2, 7):
        window.settle(tag)
    await turns()
    before = list(channel.frames)
    window.settle(7)
    await until(lambda: len(channel.acked) == 6)
    window.close()
    await asyncio.wait_for(task, 5)

    assert before == []
    assert channel.outstanding == [1, 8]


async def test_others_go_on_while_one_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_SECONDS", 0.01)
    channel, window = make_window(3)
    task = asyncio.create_task(window.acknowledge())
    for tag in range(4, 60):
        window.settle(tag - 1)
        channel.deliver(window, tag)
        await until(lambda tag=tag: tag - 1 in channel.acked)  # type: ignore[misc]
    window.close()
    await asyncio.wait_for(task, 5)

    assert channel.outstanding[:2] == [1, 2]


async def test_an_acknowledgement_cancelled_on_its_way_is_made_up_for() -> None:
    channel, window = make_window(3)
    channel.may_write.clear()
    task = asyncio.create_task(window.acknowledge())
    window.settle(1)
    await turns()
    task.cancel()  # as a stop does while the socket takes nothing
    await asyncio.gather(task, return_exceptions=True)
    channel.may_write.set()
    window.settle(2)
    await window.flush(stragglers=True)

    assert channel.acked == [1, 2]


async def test_one_can_wait_until_only_certain_deliveries_are_left() -> None:
    channel, window = make_window(3)
    waiting = asyncio.create_task(window.only({2}))
    await turns()
    for tag in (1, 3):
        assert not waiting.done()
        window.settle(tag)
        await window.flush(stragglers=True)
        await turns()

    assert waiting.done()
    assert channel.outstanding == [2]


steps = st.lists(
    st.sampled_from(["deliver", "flush", "stragglers"]) | st.integers(0, 60), max_size=80
)


@given(steps)
async def test_each_settled_tag_is_acknowledged_exactly_once(todo: list[Any]) -> None:
    channel, window = make_window(3)
    delivered, settled = 3, set()
    for step in todo:
        match step:
            case "deliver":
                delivered += 1
                channel.deliver(window, delivered)
            case "flush":
                await window.flush()
            case "stragglers":
                await window.flush(stragglers=True)
            case int():
                tag = 1 + step % delivered
                settled.add(tag)
                window.settle(tag)
        assert set(channel.acked) <= settled
    await window.flush(stragglers=True)
    assert sorted(channel.acked) == sorted(settled)


@given(st.permutations(range(1, 9)), st.integers(0, 8))
async def test_whatever_the_order_a_closed_window_sends_nothing_more(
    order: list[int], closed_after: int
) -> None:
    channel, window = make_window(8)
    for number, tag in enumerate(order):
        if number == closed_after:
            window.close()
        window.settle(tag)
        await window.flush(stragglers=True)

    assert sorted(channel.acked) == sorted(order[:closed_after])


@pytest.mark.parametrize("rejected", [1, 3, 5])
async def test_what_is_rejected_is_never_acknowledged_with_others(rejected: int) -> None:
    channel, window = make_window(5)
    for tag in range(1, 6):
        (window.reject if tag == rejected else window.settle)(tag)
    await window.flush()

    assert channel.rejected == [rejected]
    assert sorted(channel.acked) == [tag for tag in range(1, 6) if tag != rejected]
    assert channel.outstanding == []


async def test_a_delivery_is_rejected_once_and_not_after_the_end() -> None:
    channel, window = make_window(3)
    window.settle(1)
    window.reject(1)
    window.reject(2)
    window.reject(2)
    window.settle(2)
    await window.flush()
    assert (channel.acked, channel.rejected) == ([1], [2])

    window.reject(3)
    window.close()
    await window.flush()
    assert channel.rejected == [2]


async def test_what_is_rejected_makes_the_acknowledging_task_go() -> None:
    channel, window = make_window(2)
    task = asyncio.create_task(window.acknowledge())
    window.reject(2)
    await until(lambda: channel.rejected == [2])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
