"""`worker partitions`: what there is, and another number of it."""

from __future__ import annotations

import pytest

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.conftest import make_settings
from tests.support.commandline import CommandLine
from tests.support.harness import Harness
from worker.settings.settings import Settings

USER = {"username": "ann", "email": "ann@example.com"}


@pytest.fixture
def settings(own_broker: PrivateRabbitMQ, database: str) -> Settings:
    """On a broker that has the plug-in."""
    own_broker.start()
    return make_settings(own_broker.url, database).model_copy(update={"partitions": 3})


@pytest.fixture
def cli(environment: dict[str, str]) -> CommandLine:
    """`worker …` as a process, with the namespace and database of this test."""
    return CommandLine(environment)


@pytest.mark.long
async def test_each_queue_is_shown_with_what_waits_and_who_takes(
    cli: CommandLine, harness: Harness
) -> None:
    before = await cli("partitions", "show", WORKER_PARTITIONS="3")
    assert [line["messages"] for line in before.lines] == [None] * 4
    assert "not there yet" in before.err

    async with harness.worker():
        shown = await cli("partitions", "show", WORKER_PARTITIONS="3")
        assert shown.lines[0] == {
            "queue": f"{harness.settings.namespace}.commands",
            "messages": 0,
            "workers": 1,
        }
        assert [line["partition"] for line in shown.lines[1:]] == [1, 2, 3]
        assert all(line["active"] and line["served"] for line in shown.lines[1:])
        assert "3 partitions, 1 worker, 0 commands waiting" in shown.err

    await cli(
        "publish", "user.create", *(f"{k}={v}" for k, v in USER.items()), WORKER_PARTITIONS="3"
    )
    left = await cli("partitions", "show", WORKER_PARTITIONS="3")
    assert sum(line["messages"] for line in left.lines) == 1
    assert "no worker takes from" in left.err


async def test_the_number_changes_only_when_nothing_waits(
    cli: CommandLine, harness: Harness
) -> None:
    async with harness.worker():
        pass
    await harness.send("user.create", id="first", data=USER)
    for number in ("1", "2", "4"):
        refused = await cli("partitions", "apply", code=2, WORKER_PARTITIONS=number)
        assert "Commands wait in" in refused.err
    unchanged = await cli("partitions", "apply", WORKER_PARTITIONS="3")
    assert unchanged.lines == []

    async with harness.worker():
        busy = await cli("partitions", "apply", code=2, WORKER_PARTITIONS="2")
        assert "workers take from" in busy.err
        await harness.event("first")

    fewer = await cli("partitions", "apply", WORKER_PARTITIONS="2")
    assert [line["queue"].rpartition(".")[2] for line in fewer.lines] == ["3"]
    async with harness.worker(partitions=2):
        await harness.ask("user.update", target={"username": "ann"}, data={"rating": 1})
    await cli("partitions", "apply", WORKER_PARTITIONS="1")
    async with harness.worker(partitions=1):
        event = await harness.ask("user.update", target={"username": "ann"}, data={"rating": 2})
        assert event.data["version"] == 3
    shown = await cli("partitions", "show")
    assert [line["messages"] for line in shown.lines] == [0]
