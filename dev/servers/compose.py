"""The two servers as containers, where a Docker engine really answers."""

from collections.abc import Iterable
from pathlib import Path

from dev.servers.commands import Runner, run
from dev.servers.environment import Urls
from dev.servers.errors import ServerError

SERVICES = ("broker", "database")
_PROBE_SECONDS = 5.0
_UP_SECONDS = 900.0
"""Long enough to fetch the images over a slow line."""


class Compose:
    """The repository's docker-compose.yml."""

    def __init__(self, repository: Path, runner: Runner = run) -> None:
        self._file = repository / "docker-compose.yml"
        self._run = runner

    def answers(self) -> bool:
        """A client alone is no engine, and an engine without the compose plugin is no help."""
        return (
            self._run(["docker", "info"], _PROBE_SECONDS).ok
            and self._run(["docker", "compose", "version"], _PROBE_SECONDS).ok
        )

    def running(self) -> set[str]:
        """Which of our services run at this moment."""
        listing = self._compose("ps", "--services", "--status", "running", timeout=30.0)
        return set(SERVICES) & set(listing.split())

    def up(self) -> Urls:
        """Start both and return when their health checks pass."""
        self._compose("up", "-d", "--wait", *SERVICES, timeout=_UP_SECONDS)
        broker, database = self._address("broker", 5672), self._address("database", 5432)
        return Urls(
            broker=f"amqp://worker:worker@{broker}/",
            database=f"postgresql+asyncpg://worker:worker@{database}/worker",
        )

    def stop(self, services: Iterable[str]) -> None:
        """Stop these; their data stay in the volumes."""
        self._compose("stop", *sorted(services), timeout=60.0)

    def _address(self, service: str, port: int) -> str:
        """Where the service's port is published, as a client on this machine reaches it."""
        words = self._compose("port", service, str(port), timeout=30.0).split()
        host, _, published = (words[-1] if words else "").rpartition(":")
        if not published.isdigit():
            raise ServerError(
                f"docker-compose.yml publishes no port for {service}:{port}: "
                "see `docker compose ps`."
            )
        return f"{'127.0.0.1' if host in {'', '0.0.0.0', '[::]'} else host}:{published}"

    def _compose(self, *arguments: str, timeout: float) -> str:
        done = self._run(["docker", "compose", "-f", str(self._file), *arguments], timeout)
        if not done.ok:
            error = ServerError(
                f"`docker compose {' '.join(arguments)}` failed (exit {done.code}): mend it, or "
                "stop Docker to use servers of this machine."
            )
            for line in [line for line in done.output.splitlines() if line.strip()][-10:]:
                error.add(f"    {line}")
            raise error
        return done.output
