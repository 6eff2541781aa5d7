"""A private cluster of RabbitMQ nodes, all on this machine."""

import json
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from dev.servers import processes
from dev.servers.errors import ServerError
from dev.servers.private import PrivateServer
from dev.servers.processes import Process
from dev.servers.rabbitmq import PrivateRabbitMQ, accepts, epmd_command

_CONFIG = """\
cluster_formation.peer_discovery_backend = classic_config
# A node that is cut off from the others serves nobody, and clients go to those others.
cluster_partition_handling = pause_minority
"""


class PrivateEpmd(PrivateServer):
    """The directory of Erlang's nodes, for nodes that must find one another.

    A process of its own, so that it outlives each of them, and never the machine's.
    """

    title = "epmd"
    preferred_user: ClassVar[str] = "rabbitmq"

    @property
    def url(self) -> str:
        return f"epmd://127.0.0.1:{self.port}"

    def find_binaries(self) -> Path | None:
        found = shutil.which("epmd")
        return Path(found) if found else None

    def prepare(self) -> None:
        pass

    def spawn(self) -> None:
        self.begin("main", epmd_command(self.port), processes.clean_environment(self.state))

    def owns(self, process: Process) -> bool:
        return process.program == "epmd" and process.has(f"-port {self.port}")

    def answers(self) -> bool:
        return accepts(self.port)


class ClusterNode(PrivateRabbitMQ):
    """One of the nodes; `RabbitMQCluster` makes it."""

    port_names = ("main", "distribution")
    start_seconds = 120.0
    """Beside others that start, or waiting for them: longer than alone."""

    shared_epmd_port = 0

    def begin_epmd(self, environment: dict[str, str]) -> None:
        """Nothing: the cluster has one for all."""

    @property
    def epmd_port(self) -> int:
        return self.shared_epmd_port

    def await_others(self, seconds: int = 60) -> None:
        """Return once every queue and stream has its majority without this node."""
        arguments = ("await_online_quorum_plus_one", "--timeout", str(seconds))
        self.tool("rabbitmq-upgrade", *arguments, timeout=seconds + 10)
        # Of streams RabbitMQ 3.10 does not ask that, and their replicas start after the node.
        for stream, replicas in self._streams().items():
            if not processes.until(lambda: self._running(stream) >= replicas, within=seconds):  # noqa: B023
                raise ServerError(f"{stream} has not all of its {replicas} replicas yet.")

    def _streams(self) -> dict[str, int]:
        """The streams, and how many replicas each is to have."""
        told = self.ctl("list_queues", "name", "type", "members", "--formatter", "json")
        found = json.loads(told)
        return {row["name"]: len(row["members"]) for row in found if row["type"] == "stream"}

    def _running(self, stream: str) -> int:
        told = self.tool("rabbitmq-streams", "stream_status", stream, "--formatter", "json")
        return len(json.loads(told))


@dataclass(frozen=True)
class Replicas:
    """Where a queue or stream is kept."""

    leader: ClusterNode
    members: list[ClusterNode]


class RabbitMQCluster:
    """Nodes that share their definitions, and the queues that are replicated.

    They find one another when they start for the first time. Each can be killed, frozen, stopped
    and started like a server of its own. `config` is added to the rabbitmq.conf of each.
    """

    def __init__(self, directory: Path, size: int = 3, config: str = "") -> None:
        self._epmd = PrivateEpmd(directory / "epmd", None, outlive=False)
        self.nodes = [ClusterNode(directory / f"node-{number}") for number in range(1, size + 1)]
        cookie = secrets.token_hex(20)
        known = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node.node}\n"
            for number, node in enumerate(self.nodes, start=1)
        )
        for node in self.nodes:
            node.cookie, node.config = cookie, _CONFIG + known + config

    @property
    def url(self) -> str:
        """The addresses of all nodes, as the worker's setting wants them."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> None:
        """Start the nodes that do not run, all at once; return when each of them answers."""
        self._epmd.start()
        for node in self.nodes:
            node.shared_epmd_port = self._epmd.port
            node.launch()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(ClusterNode.wait, self.nodes))

    def remove(self) -> None:
        """End all of it at once, and delete what it kept."""
        servers: Sequence[PrivateServer] = (*self.nodes, self._epmd)
        for server in servers:
            server.kill()
            server.remove()

    def look(self) -> dict[str, Replicas]:
        """Every queue and stream that is replicated; asked of any node, about a second."""
        nodes = {node.node: node for node in self.nodes}
        asked = next(node for node in self.nodes if node.running)
        columns = ("name", "type", "leader", "members")
        told = asked.ctl("list_queues", *columns, "--no-table-headers")
        rows = (line.split("\t") for line in told.splitlines())
        return {
            name: Replicas(nodes[leader], [node for key, node in nodes.items() if key in members])
            for name, type_, leader, members in rows
            if type_ != "classic"  # which is on one node, its leader from RabbitMQ 4 on
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
