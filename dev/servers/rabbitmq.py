"""A private RabbitMQ."""

import glob
import secrets
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from dev.servers import accounts, processes
from dev.servers.errors import ServerError
from dev.servers.private import PrivateServer
from dev.servers.processes import Process

_PACKAGED = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
)
# Erlang hears of a module being loaded on every scheduler. RabbitMQ puts idle schedulers to sleep
# at once, and to wake them a thousand times made half of the start on a virtual machine: 4.7 s
# without these, 2.1 s with them.
_AWAKE = "+sbwt very_short +sbwtdcpu very_short +sbwtdio very_short"
# The node's second port, for its command line tools, would otherwise be open to the network.
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
_CONFIG = """\
listeners.tcp.loopback = 127.0.0.1:{port}
# The alarms must not go off by surprise: tests that want one set their own limits.
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
"""
# The types of exchange for WORKER_PARTITIONS: x-modulus-hash and x-consistent-hash.
_PLUGINS = "[rabbitmq_sharding, rabbitmq_consistent_hash_exchange].\n"


class PrivateRabbitMQ(PrivateServer):
    """A RabbitMQ node with an epmd of its own; user and password are guest.

    `config` is added to its rabbitmq.conf.
    """

    title = "RabbitMQ"
    preferred_user: ClassVar[str] = "rabbitmq"
    port_names: ClassVar[Sequence[str]] = ("main", "distribution", "epmd")

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        config: str = "",
        *,
        outlive: bool = False,
    ) -> None:
        super().__init__(directory, port, outlive=outlive)
        self.config = config
        self.cookie = secrets.token_hex(20)
        self.node = f"worker-{accounts.digest(self.directory)}@localhost"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """What `rabbitmqctl ARGUMENTS` prints, asked of this node; about a second each."""
        return self.tool("rabbitmqctl", *arguments, timeout=timeout)

    def tool(self, program: str, *arguments: str, timeout: float = 60.0) -> str:
        """The same of another of RabbitMQ's programs."""
        done = processes.run(
            [str(self._server.with_name(program)), "-q", "-n", self.node, *arguments],
            account=self.account,
            environment=self._environment(),
            directory=self.state,
            timeout=timeout,
        )
        if done.returncode:
            words = f"{program} {' '.join(arguments)} failed: {done.stdout.strip()}"
            raise ServerError(words)
        return done.stdout

    def find_binaries(self) -> Path | None:
        return find_binaries()

    def prepare(self) -> None:
        for name in ("home", "mnesia", "log"):
            accounts.own(self.state / name, self.account)
        config = _CONFIG.format(port=self.port) + self.config
        (self.state / "rabbitmq.conf").write_text(config, encoding="utf-8")
        (self.state / "enabled_plugins").write_text(_PLUGINS, encoding="utf-8")
        cookie = self.state / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self.cookie, encoding="ascii")
            cookie.chmod(0o400)
        if self.account is not None:
            shutil.chown(cookie, self.account.uid, self.account.gid)

    def spawn(self) -> None:
        environment = self._environment()
        self.begin_epmd(environment)
        # Erlang ignores the words after the script, but they mark the process as ours.
        self.begin("main", [str(self._server), *self._mark.split(" ", 1)], environment)

    def begin_epmd(self, environment: dict[str, str]) -> None:
        """Start the node's own epmd, through which others find the node by its name."""
        # Ours and in the foreground: Erlang would start one that outlives the server for ever.
        port = self.epmd_port
        epmd = self.begin("epmd", epmd_command(port), environment)
        processes.until(lambda: accepts(port) or epmd.poll() is not None, within=10)
        if epmd.poll() is not None:
            raise ServerError(f"epmd could not listen on port {port}.", log=self.log)

    @property
    def epmd_port(self) -> int:
        """Where the node's name is asked for."""
        return self.record.ports["epmd"]

    def owns(self, process: Process) -> bool:
        if process.pid == self.record.pids.get("epmd") and process.program == "epmd":
            return process.has(f"-port {self.record.ports.get('epmd')}")
        return bool(self.record.state) and process.has(self._mark)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                # A method frame on channel 0: Connection.Start. A listener that is not AMQP, or
                # not ready, says something else or nothing.
                return connection.recv(3) == b"\x01\x00\x00"
        except OSError:
            return False

    @property
    def _server(self) -> Path:
        if self.binaries is None:
            raise ServerError("RabbitMQ is not installed on this machine.")
        return self.binaries

    @property
    def _mark(self) -> str:
        return f"-worker_servers {self.state}"

    def _environment(self) -> dict[str, str]:
        """Everything that names a file of the system, pointed to ours or to nothing."""
        state, ports = self.state, self.record.ports
        return processes.clean_environment(state / "home") | {
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(state / "mnesia"),
            "RABBITMQ_LOG_BASE": str(state / "log"),
            "RABBITMQ_LOGS": "-",  # to our own log file, through standard output
            "RABBITMQ_CONF_ENV_FILE": str(state / "no-rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(state / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(state / "no-conf.d" / "*.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(state / "no-advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(state / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(state / "rabbitmq.pid"),
            # Makes the script become the server, with no shell in between that could be
            # orphaned; the price is that "no input" has to be said by ourselves.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-noinput {_LOOPBACK} {_AWAKE}",
            "RABBITMQ_CTL_ERL_ARGS": f"{_LOOPBACK} {_AWAKE}",
            # Its own listening port: any free one, where the default is a range of eleven.
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


def find_binaries() -> Path | None:
    """The script `rabbitmq-server` itself.

    Debian puts a wrapper on PATH that switches to the user rabbitmq and the system's own files;
    what it wraps is what we need.
    """
    packaged = [path for pattern in _PACKAGED for path in sorted(glob.glob(pattern), reverse=True)]
    on_path = shutil.which("rabbitmq-server")
    if on_path and Path(on_path).resolve().name != "rabbitmq-script-wrapper":
        packaged.insert(0, on_path)
    return next((Path(path) for path in packaged if Path(path).exists()), None)


def epmd_command(port: int) -> list[str]:
    """An epmd in the foreground, for this machine alone."""
    return ["epmd", "-port", str(port), "-address", "127.0.0.1"]


def accepts(port: int) -> bool:
    """Whether something listens on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
