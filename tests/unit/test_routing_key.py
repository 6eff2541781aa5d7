"""Routing keys: what a publisher sends is what the worker orders by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.fakes import REGISTRY, delivery
from worker.broker.consumer.partition_balancer import fair_share
from worker.codec.codec import Codec
from worker.codec.routing_key import RoutingWatch, routing_key_of

CODEC = Codec(REGISTRY)
COMMANDS: list[tuple[dict[str, Any], str]] = [
    ({"type": "user.delete", "target": {"id": 7}}, "user:id=7"),
    ({"type": "user.delete", "target": {"username": "Ann"}}, "user:username=ann"),
    ({"type": "user.delete", "target": {"username": "ann"}, "key": "K"}, "K"),
    (
        {"type": "user.create", "data": {"username": "Ann", "email": "a@b.de"}},
        "user:username=ann",
    ),
    ({"type": "order.create", "data": {"user": {"username": "ann"}}}, "user:username=ann"),
]


@pytest.mark.parametrize(("command", "key"), COMMANDS)
def test_a_publisher_gives_the_key_that_the_worker_orders_by(
    command: dict[str, Any], key: str
) -> None:
    sent = routing_key_of(CODEC.key_of(json.dumps(command).encode()), command["type"])
    watch = RoutingWatch()
    watch.look(CODEC.decode(delivery(command, routing_key=sent.encode())).envelope)

    assert sent == key
    assert watch.misrouted == 0


def test_a_long_key_is_hashed_and_one_that_is_missing_gives_the_type() -> None:
    long = routing_key_of("k" * 1_000, "user.create")

    assert len(long) == 64
    assert routing_key_of("k" * 1_000, "other") == long != routing_key_of("k" * 999, "other")
    assert routing_key_of(None, "user.create") == "user.create"


def test_other_routing_keys_are_counted() -> None:
    watch = RoutingWatch()
    for command, _ in COMMANDS:
        watch.look(CODEC.decode(delivery(command, routing_key=b"any")).envelope)
    watch.look(CODEC.decode(delivery("{", routing_key=b"any")).envelope)

    assert watch.misrouted == len(COMMANDS)
    ((_, readings),) = watch.read()
    assert list(readings) == [({}, len(COMMANDS))]


@pytest.mark.parametrize("partitions", range(1, 12))
@pytest.mark.parametrize("workers", range(1, 14))
def test_the_fair_shares_hold_all_partitions(partitions: int, workers: int) -> None:
    share = fair_share(partitions, workers)

    assert share * workers >= partitions
    assert (share - 1) * workers < partitions
