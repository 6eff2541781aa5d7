"""The broker of a run: one node, or a cluster of several; and a worker's ways to them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dev.servers.cluster import RabbitMQCluster
from dev.servers.rabbitmq import PrivateRabbitMQ
from worker.testing.proxy import Proxy, Way


class Brokers:
    """Nodes of RabbitMQ of which a fault breaks one, and which are started and removed together."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self._all: PrivateRabbitMQ | RabbitMQCluster
        if nodes == 1:
            self._all = PrivateRabbitMQ(directory)
            self.nodes: list[PrivateRabbitMQ] = [self._all]
        else:
            self._all = RabbitMQCluster(directory, nodes)
            self.nodes = [*self._all.nodes]

    @property
    def url(self) -> str:
        """The addresses of all nodes, with commas between."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> None:
        """Start every node that does not run; return when each of them answers."""
        self._all.start()

    def kill(self) -> None:
        """kill -9 of every node."""
        for node in self.nodes:
            node.kill()

    def remove(self) -> None:
        """End all of it, and delete what it kept."""
        self._all.remove()

    def ctl(self, *arguments: str) -> str:
        """`rabbitmqctl`, at a node that runs."""
        return next(node for node in self.nodes if node.running).ctl(*arguments)


@dataclass(frozen=True)
class Ways:
    """A link to each node, which break together: it is the worker that is cut off."""

    proxies: list[Proxy]

    @classmethod
    async def to(cls, brokers: Brokers, stack: AsyncExitStack) -> Self:
        """New ones, which end with the stack."""
        before = [Proxy.before(node.url) for node in brokers.nodes]
        return cls([await stack.enter_async_context(proxy) for proxy in before])

    def through(self, brokers: Brokers) -> str:
        """The addresses of all nodes for who takes these ways."""
        pairs = zip(self.proxies, brokers.nodes, strict=True)
        return ",".join(proxy.through(node.url) for proxy, node in pairs)

    def freeze(self) -> None:
        """Nothing flows, and nobody is told."""
        for proxy in self.proxies:
            proxy.freeze()

    def swallow(self, *, way: Way = "both") -> None:
        """What flows is lost."""
        for proxy in self.proxies:
            proxy.swallow(way=way)

    def slow(self, *, latency_seconds: float, jitter_seconds: float) -> None:
        """Everything takes longer."""
        for proxy in self.proxies:
            proxy.slow(latency_seconds=latency_seconds, jitter_seconds=jitter_seconds)

    def reset(self) -> None:
        """All connections are reset."""
        for proxy in self.proxies:
            proxy.reset()

    def heal(self) -> None:
        """Everything flows again."""
        for proxy in self.proxies:
            proxy.heal()
