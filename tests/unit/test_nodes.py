"""Which node of a cluster is tried first, and which ones after it."""

from __future__ import annotations

from itertools import islice

import pytest
from aiormq.exceptions import AMQPConnectionError, AMQPError, ProbableAuthenticationError
from yarl import URL

from worker.broker import connection as connection_module
from worker.broker.connection import connect
from worker.broker.nodes import Nodes
from worker.core.errors import Misconfigured, Unreachable
from worker.settings.settings import BrokerSettings

ADDRESSES = [f"amqp://ann:s3cret@node-{n}/" for n in (1, 2, 3)]


def hosts(nodes: Nodes, count: int = 3) -> list[str]:
    return [str(url.host) for url in islice(nodes, count)]


def test_a_round_tries_each_node_once() -> None:
    assert sorted(hosts(Nodes(ADDRESSES), 10)) == ["node-1", "node-2", "node-3"]


def test_the_next_round_begins_with_the_node_that_was_tried_longest_ago() -> None:
    nodes = Nodes(ADDRESSES)
    first, second = hosts(nodes, 2)

    assert hosts(nodes)[1:] == [first, second]


def test_several_workers_begin_with_different_nodes() -> None:
    assert {hosts(Nodes(ADDRESSES), 1)[0] for _ in range(100)} == {"node-1", "node-2", "node-3"}


class Cluster:
    """Nodes of which some cannot be used; notes which were tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: dict[str, Exception] = {}
        self.tried: list[str] = []
        self.settings = BrokerSettings.model_validate({"url": ",".join(ADDRESSES)})
        self.logs: list[str] = []
        monkeypatch.setattr(connection_module, "_open", self.open)
        monkeypatch.setattr(connection_module, "log", self)

    def info(self, event: str, *, reason: str) -> None:
        self.logs.append(f"{event}: {reason}")

    async def open(self, url: URL, *_: object) -> _Link:
        host = str(url.host)
        self.tried.append(host)
        if host in self.faults:
            raise self.faults[host]
        return _Link()


class _Link:
    async def close(self) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


async def test_an_attempt_goes_on_until_a_node_answers(cluster: Cluster) -> None:
    cluster.faults = {"node-1": ConnectionRefusedError("no"), "node-3": TimeoutError()}
    for _ in range(20):
        async with connect(cluster.settings, "test"):
            assert cluster.tried[-1] == "node-2"

    assert set(cluster.tried) == {"node-1", "node-2", "node-3"}
    assert any("node-1/): no." in line for line in cluster.logs)
    assert any("node-3/): no answer in time" in line for line in cluster.logs)
    assert "s3cret" not in str(cluster.logs)


async def test_after_a_connection_another_node_has_its_turn(cluster: Cluster) -> None:
    nodes = Nodes(cluster.settings.urls)
    for _ in range(3):
        with pytest.raises(AMQPError):
            async with connect(cluster.settings, "test", nodes):
                raise AMQPError("NOT_FOUND - down or inaccessible")

    assert sorted(cluster.tried) == ["node-1", "node-2", "node-3"]


async def test_where_none_answers_all_are_named(cluster: Cluster) -> None:
    cluster.faults = {
        "node-1": ConnectionRefusedError("refused"),
        "node-2": TimeoutError(),
        "node-3": AMQPConnectionError(),
    }
    with pytest.raises(Unreachable) as caught:
        async with connect(cluster.settings, "test"):
            pass

    message = str(caught.value)
    assert "any of 3 nodes" in message
    for part in ("node-1/: refused", "node-2/: no answer in time", "node-3/: AMQPConnectionError"):
        assert part in message
    assert "s3cret" not in message


async def test_an_account_that_one_node_refuses_is_refused_by_all(cluster: Cluster) -> None:
    cluster.faults = {
        "node-1": ConnectionRefusedError("refused"),
        "node-2": ProbableAuthenticationError("ACCESS_REFUSED"),
        "node-3": ConnectionRefusedError("refused"),
    }
    with pytest.raises(Misconfigured, match="node-2"):
        async with connect(cluster.settings, "test"):
            pass


async def test_the_only_node_is_explained_in_a_sentence_of_its_own(cluster: Cluster) -> None:
    cluster.faults = {"node-1": ConnectionRefusedError("refused")}
    settings = BrokerSettings.model_validate({"url": ADDRESSES[0]})
    with pytest.raises(Unreachable, match=r"cannot be reached \(amqp"):
        async with connect(settings, "test"):
            pass

    assert cluster.logs == []
